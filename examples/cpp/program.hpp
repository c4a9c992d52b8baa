// What the programs share: BUNDLE and PHOTO in, a line for each face out; of a video or a camera
// with the number of the frame before it.
//
// A Model opens a file with its runtime: Model(path, decoder), and run(tensor, fit) gives its
// outputs in the order of decoder.outputs(), which stay until the next run.
#pragma once

#include <cstdio>
#include <locale>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "decoder.hpp"
#include "photo.hpp"
#ifdef HAVE_OPENCV
#include "video.hpp"
#endif

template <typename Model>
std::vector<edgeface::Face> detect(Model& model, const edgeface::Decoder& decoder,
                                   const Photo& photo) {
  const auto canvas = decoder.letterbox(photo.rgb.data(), photo.width, photo.height);
  const edgeface::Fit fit = decoder.fit(photo.width, photo.height);
  if (decoder.input().dtype == "int8") {
    const auto tensor = decoder.tensor<int8_t>(canvas);
    return decoder.decode(model.run(tensor.data(), tensor.size(), fit), photo.width, photo.height);
  }
  const auto tensor = decoder.tensor<float>(canvas);
  const size_t bytes = tensor.size() * sizeof(float);
  return decoder.decode(model.run(tensor.data(), bytes, fit), photo.width, photo.height);
}

inline void print(const std::vector<edgeface::Face>& faces, const std::string& before = "") {
  for (const edgeface::Face& face : faces) {
    std::printf("%s%.4f %.3f %.3f %.3f %.3f", before.c_str(), face.score, face.x1, face.y1, face.x2,
                face.y2);
    for (const edgeface::Point& point : face.landmarks) std::printf(" %.3f %.3f", point.x, point.y);
    std::printf("\n");
  }
  std::fflush(stdout);  // a camera has no end
}

// Of the command line; whatever is no number from 0 to 1 is refused.
inline double score_of(const std::string& text) {
  std::istringstream stream(text);
  stream.imbue(std::locale::classic());
  double score = -1;
  if (!(stream >> score) || !stream.eof() || !(score >= 0 && score <= 1)) {
    throw std::runtime_error("score " + text + " is not a number from 0 to 1, such as 0.6");
  }
  return score;
}

template <typename Model>
int program(int count, char** arguments) try {
  if (count != 3 && count != 4) {
    std::fprintf(stderr, "usage: %s BUNDLE PHOTO|VIDEO|camera:N [SCORE]\n", arguments[0]);
    return 2;
  }
  const std::string folder = arguments[1], source = arguments[2];
  const auto manifest = edgeface::Json::parse_file(folder + "/manifest.json");
  edgeface::Decoder decoder(manifest);
  if (count == 4) decoder.score = score_of(arguments[3]);
  Model model(folder + "/" + manifest["primary"].text(), decoder);
  if (is_photo(source)) {
    print(detect(model, decoder, read_photo(source)));
    return 0;
  }
#ifdef HAVE_OPENCV
  Video video(source);
  Photo frame;
  int number = 0;
  while (video.read(frame)) print(detect(model, decoder, frame), std::to_string(number++) + " ");
  if (number) return 0;
  throw std::runtime_error("there is no frame in " + source);
#else
  throw std::runtime_error(source + " is no photo, and this was built without OpenCV");
#endif
} catch (const std::exception& error) {
  std::fprintf(stderr, "error: %s\n", error.what());
  return 2;
}
