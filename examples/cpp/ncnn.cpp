// detect-ncnn BUNDLE PHOTO: faces with ncnn.
#include <cstring>

#include <net.h>

#include "program.hpp"

class Model {
 public:
  Model(const std::string& path, const edgeface::Decoder& decoder) : decoder_(decoder) {
    net_.opt.num_threads = 1;
    net_.opt.use_fp16_packed = net_.opt.use_fp16_storage = net_.opt.use_fp16_arithmetic = false;
    const std::string weights = path.substr(0, path.rfind('.')) + ".bin";
    if (net_.load_param(path.c_str()) || net_.load_model(weights.c_str())) {
      throw std::runtime_error("ncnn cannot open " + path);
    }
  }

  std::vector<edgeface::Output> run(const void* tensor, size_t, const edgeface::Fit& fit) {
    // Channels of a Mat begin at multiples of 16 bytes, so they are copied one by one.
    const size_t plane = size_t(fit.canvas_width) * size_t(fit.canvas_height);
    ncnn::Mat image(fit.canvas_width, fit.canvas_height, 3);
    for (int c = 0; c < 3; ++c) {
      std::memcpy(image.channel(c), static_cast<const float*>(tensor) + size_t(c) * plane,
                  plane * sizeof(float));
    }
    ncnn::Extractor extractor = net_.create_extractor();
    check(extractor.input(decoder_.input().name.c_str(), image), decoder_.input().name);
    maps_.assign(decoder_.outputs().size(), ncnn::Mat());
    std::vector<edgeface::Output> found;
    for (size_t i = 0; i < maps_.size(); ++i) {
      const std::string& name = decoder_.outputs()[i].name;
      check(extractor.extract(name.c_str(), maps_[i]), name);
      found.push_back({maps_[i].data, maps_[i].cstep});
    }
    return found;
  }

 private:
  static void check(int status, const std::string& name) {
    if (status) throw std::runtime_error("ncnn has no " + name + ", or no memory for it");
  }

  ncnn::Net net_;
  const edgeface::Decoder& decoder_;
  std::vector<ncnn::Mat> maps_;
};

int main(int count, char** arguments) { return program<Model>(count, arguments); }
