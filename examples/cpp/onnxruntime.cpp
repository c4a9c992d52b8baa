// detect-onnxruntime BUNDLE PHOTO: faces with ONNX Runtime.
#include <onnxruntime_cxx_api.h>

#include "program.hpp"

class Model {
 public:
  Model(const std::string& path, const edgeface::Decoder& decoder)
      : session_(environment_, path.c_str(), options()), input_(decoder.input()) {
    for (const auto& output : decoder.outputs()) names_.push_back(output.name.c_str());
  }

  std::vector<edgeface::Output> run(const void* tensor, size_t bytes, const edgeface::Fit& fit) {
    const int64_t width = fit.canvas_width, height = fit.canvas_height;
    const std::vector<int64_t> shape = input_.nchw ? std::vector<int64_t>{1, 3, height, width}
                                                   : std::vector<int64_t>{1, height, width, 3};
    const auto type = input_.dtype == "int8" ? ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8
                                             : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    const auto value = Ort::Value::CreateTensor(
        Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault), const_cast<void*>(tensor),
        bytes, shape.data(), shape.size(), type);
    const char* name = input_.name.c_str();
    values_ = session_.Run({}, &name, &value, 1, names_.data(), names_.size());
    std::vector<edgeface::Output> found;
    for (const Ort::Value& output : values_) found.push_back({output.GetTensorRawData()});
    return found;
  }

 private:
  static Ort::SessionOptions options() {
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(1);
    return options;
  }

  Ort::Env environment_;
  Ort::Session session_;
  const edgeface::Tensor& input_;
  std::vector<const char*> names_;
  std::vector<Ort::Value> values_;
};

int main(int count, char** arguments) { return program<Model>(count, arguments); }
