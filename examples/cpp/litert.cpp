// detect-litert BUNDLE PHOTO: faces with LiteRT, the libLiteRt.so of the wheel ai-edge-litert 2.3.0.
//
// The wheel has no headers, so the functions are declared here. Their signatures change between
// releases: keep the version.
#include <cstring>

#include "program.hpp"

extern "C" {
struct LiteRtLayout {
  unsigned rank : 7, has_strides : 1;
  int32_t dimensions[8];
  uint32_t strides[8];
};
struct LiteRtTensorType {
  int32_t element_type;
  LiteRtLayout layout;
};
int LiteRtCreateEnvironment(int, const void*, void** environment);
int LiteRtCreateModelFromFile(void* environment, const char* path, void** model);
int LiteRtCreateOptions(void** options);
int LiteRtSetOptionsHardwareAccelerators(void* options, int accelerators);
int LiteRtCreateCompiledModel(void* environment, void* model, void* options, void** compiled);
int LiteRtGetModelSignature(void* model, size_t index, void** signature);
int LiteRtGetNumSignatureOutputs(void* signature, size_t* count);
int LiteRtGetSignatureOutputName(void* signature, size_t index, const char** name);
int LiteRtGetSignatureInputTensorByIndex(void* signature, size_t index, void** tensor);
int LiteRtGetSignatureOutputTensorByIndex(void* signature, size_t index, void** tensor);
int LiteRtGetRankedTensorType(void* tensor, LiteRtTensorType* type);
int LiteRtGetCompiledModelInputBufferRequirements(void* compiled, size_t signature, size_t index,
                                                  void** requirements);
int LiteRtGetCompiledModelOutputBufferRequirements(void* compiled, size_t signature, size_t index,
                                                   void** requirements);
int LiteRtCreateManagedTensorBufferFromRequirements(void* environment, const LiteRtTensorType* type,
                                                    void* requirements, void** buffer);
int LiteRtLockTensorBuffer(void* buffer, void** address, int write);
int LiteRtUnlockTensorBuffer(void* buffer);
int LiteRtRunCompiledModel(void* compiled, size_t signature, size_t inputs, void** in,
                           size_t outputs, void** out);
void LiteRtDestroyTensorBuffer(void* buffer);
void LiteRtDestroyCompiledModel(void* compiled);
void LiteRtDestroyOptions(void* options);
void LiteRtDestroyModel(void* model);
void LiteRtDestroyEnvironment(void* environment);
}

static void check(int status, const char* what) {
  if (status) throw std::runtime_error(std::string(what) + ": LiteRT status " + std::to_string(status));
}

class Model {
 public:
  Model(const std::string& path, const edgeface::Decoder& decoder) {
    check(LiteRtCreateEnvironment(0, nullptr, &environment_), "environment");
    check(LiteRtCreateModelFromFile(environment_, path.c_str(), &model_), path.c_str());
    check(LiteRtCreateOptions(&options_), "options");
    check(LiteRtSetOptionsHardwareAccelerators(options_, 1), "CPU");
    check(LiteRtCreateCompiledModel(environment_, model_, options_, &compiled_), path.c_str());
    void *signature, *tensor, *requirements;
    check(LiteRtGetModelSignature(model_, 0, &signature), "signature");
    check(LiteRtGetSignatureInputTensorByIndex(signature, 0, &tensor), "input");
    check(LiteRtGetCompiledModelInputBufferRequirements(compiled_, 0, 0, &requirements), "input");
    input_ = buffer(tensor, requirements);
    size_t count = 0;
    check(LiteRtGetNumSignatureOutputs(signature, &count), "outputs");
    std::vector<std::string> names;
    for (size_t i = 0; i < count; ++i) {
      const char* name = nullptr;
      check(LiteRtGetSignatureOutputName(signature, i, &name), "output");
      names.push_back(name);
      check(LiteRtGetSignatureOutputTensorByIndex(signature, i, &tensor), name);
      check(LiteRtGetCompiledModelOutputBufferRequirements(compiled_, 0, i, &requirements), name);
      outputs_.push_back(buffer(tensor, requirements));
    }
    for (const auto& output : decoder.outputs()) {
      const auto found = std::find(names.begin(), names.end(), output.name);
      if (found == names.end()) throw std::runtime_error("the file has no output " + output.name);
      order_.push_back(size_t(found - names.begin()));
    }
  }

  Model(const Model&) = delete;
  Model& operator=(const Model&) = delete;

  ~Model() {
    unlock();
    for (void* output : outputs_) LiteRtDestroyTensorBuffer(output);
    if (input_) LiteRtDestroyTensorBuffer(input_);
    if (compiled_) LiteRtDestroyCompiledModel(compiled_);
    if (options_) LiteRtDestroyOptions(options_);
    if (model_) LiteRtDestroyModel(model_);
    if (environment_) LiteRtDestroyEnvironment(environment_);
  }

  std::vector<edgeface::Output> run(const void* tensor, size_t bytes, const edgeface::Fit&) {
    unlock();
    void* address = nullptr;
    check(LiteRtLockTensorBuffer(input_, &address, 1), "input");
    std::memcpy(address, tensor, bytes);
    check(LiteRtUnlockTensorBuffer(input_), "input");
    check(LiteRtRunCompiledModel(compiled_, 0, 1, &input_, outputs_.size(), outputs_.data()), "run");
    std::vector<edgeface::Output> found;
    for (size_t index : order_) {
      check(LiteRtLockTensorBuffer(outputs_[index], &address, 0), "output");
      locked_.push_back(outputs_[index]);
      found.push_back({address});
    }
    return found;
  }

 private:
  void* buffer(void* tensor, void* requirements) {
    LiteRtTensorType type;
    void* made = nullptr;
    check(LiteRtGetRankedTensorType(tensor, &type), "type");
    check(LiteRtCreateManagedTensorBufferFromRequirements(environment_, &type, requirements, &made),
          "buffer");
    return made;
  }

  void unlock() {
    for (void* output : locked_) LiteRtUnlockTensorBuffer(output);
    locked_.clear();
  }

  void *environment_ = nullptr, *model_ = nullptr, *options_ = nullptr, *compiled_ = nullptr;
  void* input_ = nullptr;
  std::vector<void*> outputs_, locked_;
  std::vector<size_t> order_;
};

int main(int count, char** arguments) { return program<Model>(count, arguments); }
