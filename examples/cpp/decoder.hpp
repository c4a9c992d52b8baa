// Faces from a model file of edgeface, by the contract in its manifest.json. One header, C++17, no
// dependencies; to copy into an app.
//
//   photo --letterbox--> canvas --tensor--> your runtime --outputs--> decode --> faces
#pragma once

#include <algorithm>
#include <array>
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
    skip(at);
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
    const auto found = members_.find(key);
    if (found == members_.end()) throw std::runtime_error("JSON: there is no " + key);
    return found->second;
  }
  const Json& operator[](size_t index) const { return items_.at(index); }
  const std::vector<Json>& items() const { return items_; }
  const std::string& text() const { return text_; }
  double number() const {
    if (kind_ != '0') throw std::runtime_error("JSON: a number was expected");
    return number_;
  }
  int whole() const { return static_cast<int>(number()); }

 private:
  static void skip(const char*& at) {
    while (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t') ++at;
  }

  static void take(const char*& at, const char* word) {
    for (; *word; ++word, ++at) {
      if (*at != *word) throw std::runtime_error("JSON: damaged");
    }
  }

  static Json read(const char*& at) {
    Json value;
    skip(at);
    switch (value.kind_ = *at) {
      case '{': value.read_members(at); break;
      case '[': value.read_items(at); break;
      case '"': value.text_ = read_text(at); break;
      case 'n': take(at, "null"); break;
      case 't': take(at, "true"); break;
      case 'f': take(at, "false"); break;
      default: {
        value.number_ = read_number(at);
        value.kind_ = '0';
      }
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

  void read_members(const char*& at) {
    for (skip(++at); *at != '}';) {
      skip(at);
      std::string key = read_text(at);
      skip(at);
      take(at, ":");
      members_[key] = read(at);
      skip(at);
      if (*at != '}') take(at, ",");
    }
    ++at;
  }

  void read_items(const char*& at) {
    for (skip(++at); *at != ']';) {
      items_.push_back(read(at));
      skip(at);
      if (*at != ']') take(at, ",");
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

struct Point {
  double x, y;
};

struct Face {
  double score;                  // 0 to 1
  double x1, y1, x2, y2;         // px of the photo
  std::vector<Point> landmarks;  // eyes, nose, corners of the mouth, left in the photo first; or none
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

  explicit Decoder(const Json& manifest) {
    if (!manifest.has("contract")) {
      throw std::runtime_error("the manifest has no contract: export the model again");
    }
    const Json &contract = manifest["contract"], &fit = contract["fit"], &boxes = contract["boxes"];
    input_ = tensor_of(contract["input"]);
    for (const Json& output : contract["outputs"].items()) outputs_.push_back(tensor_of(output));
    long_side_ = fit.has("long_side_px") ? fit["long_side_px"].whole() : 0;
    multiple_ = fit["multiple_px"].whole();
    value_ = static_cast<uint8_t>(fit["value"].whole());
    shrink_area_ = fit["shrink"].text() == "area";
    enlarge_area_ = fit["enlarge"].text() == "area";
    ssd_ = boxes["coding"].text() == "ssd";
    if (!ssd_ && boxes["coding"].text() != "distance") {
      throw std::runtime_error("unknown box coding " + boxes["coding"].text());
    }
    anchors_ = boxes["anchors"].whole();
    offset_ = boxes["offset"].number();
    for (int i = 0; ssd_ && i < 2; ++i) prior_[i] = boxes["prior"][i].number();
    score = contract["results"]["score"].number();
    iou_ = contract["results"]["nms_iou"].number();
    candidates_ = static_cast<size_t>(contract["results"]["candidates"].whole());
  }

  const Tensor& input() const { return input_; }
  const std::vector<Tensor>& outputs() const { return outputs_; }

  Fit fit(int photo_width, int photo_height) const {
    const int across = long_side_ ? long_side_ : input_.width;
    const int down = long_side_ ? long_side_ : input_.height;
    const double s = std::min(double(across) / photo_width, double(down) / photo_height);
    // nearbyint rounds half to even
    const int width = std::min(across, std::max(1, int(std::nearbyint(photo_width * s))));
    const int height = std::min(down, std::max(1, int(std::nearbyint(photo_height * s))));
    if (!long_side_) return {width, height, across, down};
    const auto whole = [this](int v) { return (v + multiple_ - 1) / multiple_ * multiple_; };
    return {width, height, whole(width), whole(height)};
  }

  // RGB of the canvas, row by row; rgb: the photo, the same way.
  std::vector<uint8_t> letterbox(const uint8_t* rgb, int photo_width, int photo_height) const {
    const Fit to = fit(photo_width, photo_height);
    const bool shrinks = std::max(to.width, to.height) < std::max(photo_width, photo_height);
    const bool area = shrinks ? shrink_area_ : enlarge_area_;
    const auto columns = taps(photo_width, to.width, area);
    const auto rows = taps(photo_height, to.height, area);
    std::vector<uint8_t> canvas(size_t(3) * to.canvas_width * to.canvas_height, value_);
    std::vector<float> line(size_t(3) * photo_width);
    // OpenCV, which models are checked with, rounds bilinear values up from .625, and halves up
    // only where it halves a photo; else to even
    const bool even = area && (photo_width != 2 * to.width || photo_height != 2 * to.height);
    const float up = area ? .5f : .375f;
    for (int y = 0; y < to.height; ++y) {
      std::fill(line.begin(), line.end(), 0.f);
      for (size_t i = 0; i < rows[y].shares.size(); ++i) {
        const uint8_t* from = rgb + (rows[y].first + i) * line.size();
        for (size_t at = 0; at < line.size(); ++at) line[at] += rows[y].shares[i] * from[at];
      }
      uint8_t* row = canvas.data() + size_t(3) * to.canvas_width * y;
      for (int x = 0; x < to.width; ++x) {
        for (int c = 0; c < 3; ++c) {
          float sum = 0;
          for (size_t i = 0; i < columns[x].shares.size(); ++i) {
            sum += columns[x].shares[i] * line[(columns[x].first + i) * 3 + c];
          }
          row[3 * x + c] = static_cast<uint8_t>(std::min(255.f, even ? std::nearbyint(sum) : sum + up));
        }
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
    std::stable_sort(faces.begin(), faces.end(),
                     [](const Face& a, const Face& b) { return a.score > b.score; });
    if (faces.size() > candidates_) faces.resize(candidates_);
    std::vector<Face> kept;
    for (const Face& face : faces) {
      const auto overlaps = [&](const Face& better) { return iou(face, better) > iou_; };
      if (std::none_of(kept.begin(), kept.end(), overlaps)) kept.push_back(face);
    }
    return in_photo(kept, double(to.width) / width, double(to.height) / height, width, height);
  }

 private:
  struct Taps {
    int first;                  // old pixel
    std::vector<float> shares;  // of that and the next ones in the new pixel
  };

  struct Level {
    int stride;
    Fit fit;
    std::map<std::string, std::pair<const Tensor*, Output>> maps{};

    int rows() const { return (fit.canvas_height + stride - 1) / stride; }
    int columns() const { return (fit.canvas_width + stride - 1) / stride; }

    double at(const std::string& kind, int row, int column, int channel) const {
      const auto& [spec, output] = maps.at(kind);
      const size_t cell = size_t(row) * columns() + column;
      const size_t plane = output.plane ? output.plane : size_t(rows()) * columns();
      const size_t i = spec->nchw ? channel * plane + cell : cell * spec->channels + channel;
      const double value = spec->dtype == "int8" ? double(static_cast<const int8_t*>(output.data)[i])
                                                 : double(static_cast<const float*>(output.data)[i]);
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
    const auto side = [&](int axis) {
      return spec["shape"][axis].null() ? 0 : spec["shape"][axis].whole();
    };
    tensor.channels = side(tensor.nchw ? 1 : 3);
    tensor.height = side(tensor.nchw ? 2 : 1);
    tensor.width = side(tensor.nchw ? 3 : 2);
    return tensor;
  }

  static std::vector<Taps> taps(int old, int fresh, bool area) {
    const double step = double(old) / fresh;
    std::vector<Taps> found;
    for (int i = 0; i < fresh; ++i) {
      if (area) {
        Taps one{int(i * step), {}};
        const int end = std::min(int(std::ceil((i + 1) * step)), old);
        for (int p = one.first; p < end; ++p) {
          const double part = std::min(p + 1., (i + 1) * step) - std::max(double(p), i * step);
          one.shares.push_back(float(std::max(part, 0.) / step));
        }
        found.push_back(one);
      } else {
        const double centre = std::clamp((i + .5) * step - .5, 0., old - 1.);
        const int first = std::min(int(centre), std::max(old - 2, 0));
        const float rest = float(centre - first);
        found.push_back({first, old > 1 ? std::vector<float>{1 - rest, rest}
                                        : std::vector<float>{1}});
      }
    }
    return found;
  }

  void add_candidates(const Level& level, std::vector<Face>& faces) const {
    for (int row = 0; row < level.rows(); ++row) {
      for (int column = 0; column < level.columns(); ++column) {
        for (int anchor = 0; anchor < anchors_; ++anchor) {
          const double s = 1 / (1 + std::exp(-level.at("cls", row, column, anchor)));
          if (s >= score) faces.push_back(face(level, row, column, anchor, s));
        }
      }
    }
  }

  Face face(const Level& level, int row, int column, int anchor, double s) const {
    const double x = column + offset_, y = row + offset_;
    const int stride = level.stride;
    const auto v = [&](int i) { return level.at("box", row, column, 4 * anchor + i); };
    Face face{s, x - v(0), y - v(1), x + v(2), y + v(3), {}};
    if (ssd_) {
      const double cx = x + v(0) * prior_[0], cy = y + v(1) * prior_[1];
      const double w = std::exp(v(2)) * prior_[0] / 2, h = std::exp(v(3)) * prior_[1] / 2;
      face = {s, cx - w, cy - h, cx + w, cy + h, {}};
    }
    for (double* side : {&face.x1, &face.y1, &face.x2, &face.y2}) *side *= stride;
    for (int i = 0; level.maps.count("kps") && i < 5; ++i) {
      const auto k = [&](int axis) { return level.at("kps", row, column, 10 * anchor + 2 * i + axis); };
      face.landmarks.push_back({(x + k(0)) * stride, (y + k(1)) * stride});
    }
    return face;
  }

  static double area(double x1, double y1, double x2, double y2) {
    return std::max(x2 - x1, 0.) * std::max(y2 - y1, 0.);
  }

  static double iou(const Face& a, const Face& b) {
    const double shared = area(std::max(a.x1, b.x1), std::max(a.y1, b.y1),
                               std::min(a.x2, b.x2), std::min(a.y2, b.y2));
    if (shared <= 0) return 0;
    return shared / (area(a.x1, a.y1, a.x2, a.y2) + area(b.x1, b.y1, b.x2, b.y2) - shared);
  }

  static std::vector<Face> in_photo(std::vector<Face> faces, double fx, double fy, int width,
                                    int height) {
    for (Face& face : faces) {
      face.x1 = std::clamp(face.x1 / fx, 0., double(width));
      face.x2 = std::clamp(face.x2 / fx, 0., double(width));
      face.y1 = std::clamp(face.y1 / fy, 0., double(height));
      face.y2 = std::clamp(face.y2 / fy, 0., double(height));
      for (Point& point : face.landmarks) point = {point.x / fx, point.y / fy};
    }
    const auto nothing_left = [](const Face& f) { return f.x2 <= f.x1 || f.y2 <= f.y1; };
    faces.erase(std::remove_if(faces.begin(), faces.end(), nothing_left), faces.end());
    return faces;
  }

  Tensor input_;
  std::vector<Tensor> outputs_;
  int long_side_, multiple_, anchors_;
  uint8_t value_;
  bool shrink_area_, enlarge_area_, ssd_;
  double offset_, iou_;
  std::array<double, 2> prior_{};
  size_t candidates_;
};

}  // namespace edgeface
