// Faces from a model file of edgeface, by the contract in its manifest.json. One header, C++17, no
// dependencies; to copy into an app.
//
//   photo --letterbox--> canvas --tensor--> your runtime --outputs--> decode --> faces
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <locale>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace edgeface {

// A JSON value: enough of the format for a manifest.
class Json {
 public:
  static Json parse(const std::string& text) {
    const char* at = text.c_str();
    Json value = read(at);
    peek(at);
    if (at != text.c_str() + text.size()) throw std::runtime_error("JSON: more than one value");
    return value;
  }

  static Json parse_file(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + path);
    return parse({std::istreambuf_iterator<char>(file), {}});
  }

  bool has(const std::string& key) const { return members_.count(key) && !members_.at(key).null(); }
  bool null() const { return kind_ == 'n'; }
  const Json& operator[](const std::string& key) const {
    if (!members_.count(key)) throw std::runtime_error("no " + key + ": export the model again");
    return members_.at(key);
  }
  const Json& operator[](size_t index) const { return items_.at(index); }
  const std::vector<Json>& items() const { return items_; }
  const std::string& text() const { return text_; }
  double number() const {
    if (kind_ != '0') throw std::runtime_error("JSON: a number was expected");
    return number_;
  }
  int whole() const { return null() ? 0 : int(number()); }  // null is no bound

 private:
  // What comes next but spaces.
  static char peek(const char*& at) {
    while (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t') ++at;
    return *at;
  }

  static void take(const char*& at, const char* word) {
    for (peek(at); *word; ++word, ++at)
      if (*at != *word) throw std::runtime_error("JSON: damaged");
  }

  static Json read(const char*& at) {
    Json value;
    switch (value.kind_ = peek(at)) {
      case '{':
      case '[': value.read_list(at, *at == '{'); break;
      case '"': value.text_ = read_text(at); break;
      case 'n': take(at, "null"); break;
      case 't': take(at, "true"); break;
      case 'f': take(at, "false"); break;
      default:
        value.number_ = read_number(at);
        value.kind_ = '0';
    }
    return value;
  }

  static double read_number(const char*& at) {
    std::string digits;
    while (*at && std::strchr("+-.0123456789eE", *at)) digits += *at++;
    std::istringstream stream(digits);
    stream.imbue(std::locale::classic());  // a point, whatever the user's language writes
    double value;
    if (!(stream >> value)) throw std::runtime_error("JSON: damaged");
    return value;
  }

  void read_list(const char*& at, bool named) {
    const char close = named ? '}' : ']';
    for (++at; peek(at) != close;) {
      const std::string key = named ? read_text(at) : "";
      if (named) take(at, ":");
      (named ? members_[key] : items_.emplace_back()) = read(at);
      if (peek(at) != close) take(at, ",");
    }
    ++at;
  }

  static std::string read_text(const char*& at) {
    std::string text;
    for (take(at, "\""); *at != '"'; ++at) {
      if (!*at) throw std::runtime_error("JSON: damaged");
      if (*at == '\\') ++at;  // escapes stand for themselves: contracts have none that matter
      text += *at;
    }
    ++at;
    return text;
  }

  char kind_ = 'n';
  double number_ = 0;
  std::string text_;
  std::vector<Json> items_;
  std::map<std::string, Json> members_;
};

struct Fit {
  int width, height;               // of the photo on the canvas, px
  int canvas_width, canvas_height;  // px
};

struct Point { double x, y; };

struct Face {
  double score;                  // 0 to 1
  double x1, y1, x2, y2;         // px of the photo
  std::vector<Point> landmarks;  // eyes, nose, corners of the mouth, left first; or none
};

// One input or output of a file.
struct Tensor {
  std::string kind;  // of an output: cls, box or kps
  std::string name;  // what a runtime addresses it by
  std::string dtype;
  bool nchw = false;
  int index = 0, stride = 0, channels = 0, width = 0, height = 0;  // 0: any
  double scale = 1, zero_point = 0;
};

// An output as a runtime has it.
struct Output {
  const void* data;  // float or int8, as the contract says
  size_t plane = 0;  // NCHW: elements from one channel to the next; 0: rows * columns
};

class Decoder {
 public:
  double score;  // lowest that is reported, 0 to 1

  explicit Decoder(const std::string& manifest) : Decoder(Json::parse_file(manifest)) {}

  explicit Decoder(const Json& manifest) : contract_(manifest["contract"]) {
    input_ = tensor_of(contract_["input"]);
    for (const Json& output : contract_["outputs"].items()) outputs_.push_back(tensor_of(output));
    const std::string& coding = contract_["boxes"]["coding"].text();
    if (coding != "ssd" && coding != "distance")
      throw std::runtime_error("unknown box coding " + coding);
    score = contract_["results"]["score"].number();
  }

  const Tensor& input() const { return input_; }
  const std::vector<Tensor>& outputs() const { return outputs_; }

  Fit fit(int photo_width, int photo_height) const {
    const Json& rule = contract_["fit"];
    const int longest = rule["long_side_px"].whole(), multiple = rule["multiple_px"].whole();
    const int across = longest ? longest : input_.width, down = longest ? longest : input_.height;
    const double s = std::min(double(across) / photo_width, double(down) / photo_height);
    // nearbyint rounds half to even
    const int width = std::min(across, std::max(1, int(std::nearbyint(photo_width * s))));
    const int height = std::min(down, std::max(1, int(std::nearbyint(photo_height * s))));
    if (!longest) return {width, height, across, down};
    const auto whole = [=](int v) { return (v + multiple - 1) / multiple * multiple; };
    return {width, height, whole(width), whole(height)};
  }

  // RGB of the canvas, row by row; rgb: the photo, the same way. Every level is that of OpenCV,
  // which models are checked with: the same sums in the same order, in integers where it has them.
  std::vector<uint8_t> letterbox(const uint8_t* rgb, int photo_width, int photo_height) const {
    const Json& rule = contract_["fit"];
    const Fit to = fit(photo_width, photo_height);
    const bool shrinks = std::max(to.width, to.height) < std::max(photo_width, photo_height);
    const bool area = rule[shrinks ? "shrink" : "enlarge"].text() == "area";
    const bool whole = area && photo_width % to.width == 0 && photo_height % to.height == 0;
    const int covered = whole ? photo_width / to.width * (photo_height / to.height) : 1;
    const bool halves = photo_width == 2 * to.width && photo_height == 2 * to.height;
    const auto columns = taps(photo_width, to.width, area, whole);
    const auto rows = taps(photo_height, to.height, area, whole);
    std::vector<uint8_t> canvas(size_t(3) * to.canvas_width * to.canvas_height,
                                uint8_t(rule["value"].whole()));
    std::vector<float> line(size_t(3) * to.width);
    for (int y = 0; y < to.height; ++y) {
      std::fill(line.begin(), line.end(), 0.f);
      for (const Tap& down : rows[y]) {
        const uint8_t* from = rgb + size_t(3) * photo_width * down.at;
        for (int i = 0; i < 3 * to.width; ++i) {
          float sum = 0;
          for (const Tap& tap : columns[i / 3]) sum += product(tap.share, from[3 * tap.at + i % 3]);
          line[i] += area ? product(down.share, sum)
                          : float((int(sum) >> 4) * int(down.share) >> 16);
        }
      }
      uint8_t* row = canvas.data() + size_t(3) * to.canvas_width * y;
      for (int i = 0; i < 3 * to.width; ++i) {
        const float level = line[i] * (area ? 1.f / covered : .25f);
        row[i] = uint8_t(area && !halves ? std::nearbyint(level) : level + .5f);
      }
    }
    return canvas;
  }

  // What the file takes, of a canvas, in the layout of the contract. T: float, or int8_t where the
  // input is int8.
  template <typename T>
  std::vector<T> tensor(const std::vector<uint8_t>& canvas) const {
    std::vector<T> values(canvas.size());
    const size_t cells = canvas.size() / 3;
    for (size_t i = 0; i < canvas.size(); ++i) {
      const size_t to = input_.nchw ? i % 3 * cells + i / 3 : i;
      values[to] = static_cast<T>(canvas[i] / input_.scale + input_.zero_point);
    }
    return values;
  }

  // Faces, best first. found: in the order of outputs().
  std::vector<Face> decode(const std::vector<Output>& found, int width, int height) const {
    if (found.size() != outputs_.size()) throw std::runtime_error("outputs are missing");
    const Fit to = fit(width, height);
    std::vector<Face> faces;
    for (size_t i = 0; i < outputs_.size();) {
      Level level{outputs_[i].stride, to};
      for (; i < outputs_.size() && outputs_[i].stride == level.stride; ++i) {
        level.maps[outputs_[i].kind] = {&outputs_[i], found[i]};
      }
      add_candidates(level, faces);
    }
    faces = best(faces);
    const double fx = double(to.width) / width, fy = double(to.height) / height;
    for (Face& face : faces) {
      for (double* x : {&face.x1, &face.x2}) *x = std::clamp(*x / fx, 0., double(width));
      for (double* y : {&face.y1, &face.y2}) *y = std::clamp(*y / fy, 0., double(height));
      for (Point& point : face.landmarks) point = {point.x / fx, point.y / fy};
    }
    const auto nothing_left = [](const Face& f) { return f.x2 <= f.x1 || f.y2 <= f.y1; };
    faces.erase(std::remove_if(faces.begin(), faces.end(), nothing_left), faces.end());
    return faces;
  }

 private:
  struct Tap {
    int at;       // old pixel
    float share;  // of it in a new one
  };

  struct Level {
    int stride;
    Fit fit;
    std::map<std::string, std::pair<const Tensor*, Output>> maps{};

    int columns() const { return (fit.canvas_width + stride - 1) / stride; }
    int cells() const { return (fit.canvas_height + stride - 1) / stride * columns(); }

    // cell: row by row
    double at(const std::string& kind, size_t cell, size_t channel) const {
      const auto& [spec, output] = maps.at(kind);
      const size_t plane = output.plane ? output.plane : size_t(cells());
      const size_t i = spec->nchw ? channel * plane + cell : cell * spec->channels + channel;
      const double value = spec->dtype == "int8" ? static_cast<const int8_t*>(output.data)[i]
                                                 : static_cast<const float*>(output.data)[i];
      return (value - spec->zero_point) * spec->scale;
    }
  };

  static Tensor tensor_of(const Json& spec) {
    Tensor tensor;
    if (spec.has("kind")) tensor.kind = spec["kind"].text();
    if (spec.has("stride")) tensor.stride = spec["stride"].whole();
    tensor.name = spec["name"].text();
    tensor.dtype = spec["dtype"].text();
    tensor.nchw = spec["layout"].text() == "NCHW";
    tensor.index = spec["index"].whole();
    tensor.scale = spec["scale"].number();
    tensor.zero_point = spec["zero_point"].number();
    const Json& shape = spec["shape"];
    tensor.channels = shape[tensor.nchw ? 1 : 3].whole();
    tensor.height = shape[tensor.nchw ? 2 : 1].whole();
    tensor.width = shape[tensor.nchw ? 3 : 2].whole();
    return tensor;
  }

  // Rounded, as OpenCV has it: for ARM, or with -march=native, compilers would make one instruction
  // of a product and the sum that it goes into, which rounds once.
  template <typename T>
  static T product(T a, double b) { const volatile T rounded = a * T(b); return rounded; }

  // By area: how much of an old pixel is in a new one, in px where whole ones are, else of 1.
  // Bilinear: of the two around the centre, of 2048.
  static std::vector<std::vector<Tap>> taps(int old, int fresh, bool area, bool whole) {
    const double step = double(old) / fresh;
    std::vector<std::vector<Tap>> found(fresh);
    for (int i = 0; i < fresh; ++i) {
      const double low = product(step, i), high = std::min(product(step, i + 1), double(old));
      for (int p = int(low); area && p < high; ++p) {
        const double part = std::min(p + 1., high) - std::max(double(p), low);
        if (part > 1e-3) found[i].push_back({p, float(whole ? part : part / (high - low))});
      }
      if (area) continue;
      const float centre = float(product(step, i + .5) - .5), first = std::floor(centre);
      const float right = std::nearbyint(2048 * (centre - first));
      found[i] = {{std::max(int(first), 0), 2048 - right},
                  {std::min(int(first) + 1, old - 1), right}};
    }
    return found;
  }

  void add_candidates(const Level& level, std::vector<Face>& faces) const {
    const int anchors = contract_["boxes"]["anchors"].whole();
    for (int cell = 0; cell < level.cells(); ++cell) {
      for (int anchor = 0; anchor < anchors; ++anchor) {
        const double s = 1 / (1 + std::exp(-level.at("cls", cell, anchor)));
        if (s >= score) faces.push_back(face(level, cell, anchor, s));
      }
    }
  }

  Face face(const Level& level, int cell, int anchor, double s) const {
    const Json& rule = contract_["boxes"];
    const double x = cell % level.columns() + rule["offset"].number();
    const double y = cell / level.columns() + rule["offset"].number();
    const auto v = [&](int i) { return level.at("box", cell, 4 * anchor + i); };
    Face face{s, x - v(0), y - v(1), x + v(2), y + v(3), {}};
    if (rule["coding"].text() == "ssd") {
      const double p = rule["prior"][0].number(), q = rule["prior"][1].number();
      const double cx = x + v(0) * p, cy = y + v(1) * q;
      const double w = std::exp(v(2)) * p / 2, h = std::exp(v(3)) * q / 2;
      face = {s, cx - w, cy - h, cx + w, cy + h, {}};
    }
    for (double* side : {&face.x1, &face.y1, &face.x2, &face.y2}) *side *= level.stride;
    const auto k = [&](int i) { return level.at("kps", cell, 10 * anchor + i); };
    for (int i = 0; level.maps.count("kps") && i < 10; i += 2) {
      face.landmarks.push_back({(x + k(i)) * level.stride, (y + k(i + 1)) * level.stride});
    }
    return face;
  }

  // Without those that overlap a better one.
  std::vector<Face> best(std::vector<Face> faces) const {
    const Json& rule = contract_["results"];
    const size_t most = size_t(rule["candidates"].whole());
    std::stable_sort(faces.begin(), faces.end(),
                     [](const Face& a, const Face& b) { return a.score > b.score; });
    if (faces.size() > most) faces.resize(most);
    const double most_iou = rule["nms_iou"].number();
    std::vector<Face> kept;
    for (const Face& face : faces) {
      const auto overlaps = [&](const Face& better) { return iou(face, better) > most_iou; };
      if (std::none_of(kept.begin(), kept.end(), overlaps)) kept.push_back(face);
    }
    for (Face& face : kept) face.landmarks = mean_landmarks(face, faces, most_iou);
    return kept;
  }

  // Of all that overlap a face by more than most, itself among them, as the contract weighs them.
  static std::vector<Point> mean_landmarks(const Face& face, const std::vector<Face>& candidates,
                                           double most) {
    std::vector<Point> mean(face.landmarks.size(), Point{0, 0});
    double total = 0;
    for (const Face& other : candidates) {
      const double weight = std::max(iou(face, other) - most, 0.) * other.score;
      total += weight;
      for (size_t i = 0; weight > 0 && i < mean.size(); ++i) {
        mean[i].x += weight * other.landmarks[i].x;
        mean[i].y += weight * other.landmarks[i].y;
      }
    }
    if (total <= 0) return face.landmarks;
    for (Point& point : mean) point = {point.x / total, point.y / total};
    return mean;
  }

  static double iou(const Face& a, const Face& b) {
    const auto area = [](double w, double h) { return std::max(w, 0.) * std::max(h, 0.); };
    const double shared = area(std::min(a.x2, b.x2) - std::max(a.x1, b.x1),
                               std::min(a.y2, b.y2) - std::max(a.y1, b.y1));
    if (shared <= 0) return 0;
    return shared / (area(a.x2 - a.x1, a.y2 - a.y1) + area(b.x2 - b.x1, b.y2 - b.y1) - shared);
  }

  Json contract_;
  Tensor input_;
  std::vector<Tensor> outputs_;
};

}  // namespace edgeface
