// detect-openvino BUNDLE PHOTO: faces with OpenVINO.
#include <openvino/openvino.hpp>

#include "program.hpp"

class Model {
 public:
  // Without f32, CPUs that compute in bfloat16 move weak boxes by up to 10 px.
  Model(const std::string& path, const edgeface::Decoder& decoder)
      : request_(ov::Core()
                     .compile_model(path, "CPU", ov::hint::inference_precision(ov::element::f32),
                                    ov::inference_num_threads(1))
                     .create_infer_request()),
        decoder_(decoder) {}

  std::vector<edgeface::Output> run(const void* tensor, size_t, const edgeface::Fit& fit) {
    const edgeface::Tensor& input = decoder_.input();
    const size_t width = size_t(fit.canvas_width), height = size_t(fit.canvas_height);
    const ov::Shape shape = input.nchw ? ov::Shape{1, 3, height, width}
                                       : ov::Shape{1, height, width, 3};
    const auto type = input.dtype == "int8" ? ov::element::i8 : ov::element::f32;
    request_.set_tensor(input.name, ov::Tensor(type, shape, const_cast<void*>(tensor)));
    request_.infer();
    std::vector<edgeface::Output> found;
    for (const auto& output : decoder_.outputs()) {
      found.push_back({request_.get_tensor(output.name).data()});
    }
    return found;
  }

 private:
  ov::InferRequest request_;
  const edgeface::Decoder& decoder_;
};

int main(int count, char** arguments) { return program<Model>(count, arguments); }
