// test FOLDER: the decoder gives what the golden vectors in FOLDER say.
#include <cstdio>
#include <filesystem>

#include "decoder.hpp"

using edgeface::Json;

static int checked = 0;

static void expect(const std::string& what, const std::vector<double>& found,
                   const std::vector<double>& wanted, double most) {
  double apart = found.size() == wanted.size() ? 0 : INFINITY;
  for (size_t i = 0; apart < INFINITY && i < found.size(); ++i) {
    apart = std::max(apart, std::abs(found[i] - wanted[i]));
  }
  if (!(apart <= most)) {
    throw std::runtime_error(what + ": " + std::to_string(apart) + " apart, at most " +
                             std::to_string(most) + " is right");
  }
  ++checked;
}

static std::vector<uint8_t> bytes(const std::string& text) {
  static const std::string digits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<uint8_t> found;
  unsigned bits = 0, count = 0;
  for (char c : text) {
    if (c == '=') break;
    bits = bits << 6 | unsigned(digits.find(c));
    if ((count += 6) >= 8) found.push_back(uint8_t(bits >> (count -= 8)));
  }
  return found;
}

// All numbers of a JSON value, in order.
static void gather(const Json& value, std::vector<double>& found) {
  if (value.items().empty() && !value.null()) found.push_back(value.number());
  for (const Json& item : value.items()) gather(item, found);
}

static std::vector<double> numbers(const Json& list, const char* key = nullptr) {
  std::vector<double> found;
  if (!key) gather(list, found);
  for (const Json& item : list.items()) {
    if (key) gather(item[key], found);
  }
  return found;
}

static void check_faces(const std::string& name, const Json& test, const edgeface::Decoder& decoder) {
  std::vector<std::vector<uint8_t>> kept;
  std::vector<edgeface::Output> outputs;
  for (const Json& text : test["outputs"].items()) kept.push_back(bytes(text.text()));
  for (const auto& data : kept) outputs.push_back({data.data()});
  std::vector<double> scores, boxes, points;
  for (const auto& face : decoder.decode(outputs, test["photo"][0].whole(), test["photo"][1].whole())) {
    scores.push_back(face.score);
    boxes.insert(boxes.end(), {face.x1, face.y1, face.x2, face.y2});
    for (const auto& point : face.landmarks) points.insert(points.end(), {point.x, point.y});
  }
  expect(name + ": scores", scores, numbers(test["faces"], "score"), 1e-4);
  expect(name + ": boxes", boxes, numbers(test["faces"], "box"), 0.05);
  expect(name + ": landmarks", points, numbers(test["faces"], "landmarks"), 0.05);
}

static void check(const std::string& name, const Json& test) {
  const edgeface::Decoder decoder(test);
  const int width = test["photo"][0].whole(), height = test["photo"][1].whole();
  const edgeface::Fit fit = decoder.fit(width, height);
  expect(name + ": fitted", {double(fit.width), double(fit.height)}, numbers(test["fitted"]), 0);
  expect(name + ": canvas", {double(fit.canvas_width), double(fit.canvas_height)},
         numbers(test["canvas"]), 0);
  if (test.has("pixels")) {
    const auto canvas = decoder.letterbox(bytes(test["rgb"].text()).data(), width, height);
    const auto wanted = bytes(test["pixels"].text());
    expect(name + ": pixels", {canvas.begin(), canvas.end()}, {wanted.begin(), wanted.end()}, 0);
  }
  if (test.has("faces")) check_faces(name, test, decoder);
}

int main(int count, char** arguments) try {
  if (count != 2) throw std::runtime_error("usage: test FOLDER");
  for (const auto& entry : std::filesystem::directory_iterator(arguments[1])) {
    if (entry.path().extension() != ".json") continue;
    const Json cases = Json::parse_file(entry.path().string());
    for (const Json& test : cases.items()) {
      check(entry.path().filename().string() + ", " + test["name"].text(), test);
    }
  }
  if (!checked) throw std::runtime_error(std::string("no vectors in ") + arguments[1]);
  std::printf("C++: %d checks passed\n", checked);
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 1;
}
