// Two CUDA devices for machines without one: memory of the CPU that torch takes for a GPU's.
//
// Built against the CPU's torch and loaded before it, this registers what the CUDA library would: an
// allocator, a device guard, hooks, and a kernel for every operation, which lends the memory to the
// CPU's kernel. What a GPU refuses is refused here: tensors of the CPU or of the other GPU beside its
// own, random generators of the CPU, products of integers, conversions to numpy.

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/NativeFunctions.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <vector>

using at::CUDAHooksRegistry;
using at::RegistererCUDAHooksRegistry;
using at::IntArrayRef;
using at::Tensor;

namespace {

constexpr c10::DeviceIndex N_DEVICES = 2;
const c10::Device CPU(c10::kCPU);
thread_local c10::DeviceIndex current = 0;
int64_t n_waits = 0;  // how often the host had to wait for a result of the device

c10::Device gpu(c10::DeviceIndex index) { return {c10::kCUDA, index}; }
c10::DeviceIndex exchange(c10::DeviceIndex index) {
  auto before = current;
  if (index >= 0) current = index;
  return before;
}

struct Memory final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    void* p = std::calloc(n ? n : 1, 1);
    return {p, p, &std::free, gpu(current)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &std::free; }
  void copy_data(void* to, const void* from, size_t n) const override { std::memcpy(to, from, n); }
} memory;
REGISTER_ALLOCATOR(c10::kCUDA, &memory);

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static c10::Stream stream(c10::Device d) { return c10::Stream(c10::Stream::DEFAULT, d); }
  c10::DeviceType type() const override { return c10::kCUDA; }
  c10::Device exchangeDevice(c10::Device d) const override { return gpu(exchange(d.index())); }
  c10::Device getDevice() const override { return gpu(current); }
  void setDevice(c10::Device d) const override { exchange(d.index()); }
  void uncheckedSetDevice(c10::Device d) const noexcept override { exchange(d.index()); }
  c10::Stream getStream(c10::Device d) const override { return stream(d); }
  c10::Stream getDefaultStream(c10::Device d) const override { return stream(d); }
  c10::Stream getNewStream(c10::Device d, int) const override { return stream(d); }
  c10::Stream exchangeStream(c10::Stream s) const override { return stream(s.device()); }
  c10::DeviceIndex deviceCount() const noexcept override { return N_DEVICES; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard);

struct Hooks final : at::CUDAHooksInterface {
  Hooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return N_DEVICES; }
  void setCurrentDevice(c10::DeviceIndex i) const override { exchange(i); }
  c10::DeviceIndex getCurrentDevice() const override { return current; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex i) const override { return exchange(i); }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex i) const override { return exchange(i); }
  c10::DeviceIndex current_device() const override { return current; }
  int getNumGPUs() const override { return N_DEVICES; }
  void deviceSynchronize(c10::DeviceIndex) const override {}
  c10::Device getDeviceFromPtr(void*) const override { return gpu(current); }
};
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, Hooks)

// The same numbers in the same memory, as a tensor of the other device; `owner` outlives it.
Tensor seen_from(const Tensor& t, c10::Device device, std::shared_ptr<Tensor> owner = nullptr) {
  if (!t.defined() || t.device().type() == device.type()) return t;
  void* data = const_cast<void*>(t.unsafeGetTensorImpl()->storage().data());
  auto other = at::for_blob(data, t.sizes()).strides(t.strides()).storage_offset(t.storage_offset())
      .deleter([owner](void*) {}).options(t.options().device(device)).target_device(device).make_tensor();
  other._set_conj(t.is_conj());
  other._set_neg(t.is_neg());
  return other;
}
Tensor on_cpu(const Tensor& t) { return seen_from(t, CPU); }
Tensor on_gpu(const Tensor& t) { return seen_from(t, gpu(current), std::make_shared<Tensor>(t)); }

const Tensor& resized(const Tensor& self, IntArrayRef size, std::optional<at::MemoryFormat>) {
  auto* impl = self.unsafeGetTensorImpl();
  auto storage = impl->unsafe_storage();  // shares what it stands for
  size_t needed = (c10::multiply_integers(size) + impl->storage_offset()) * self.itemsize();
  if (needed > storage.nbytes()) {
    c10::DeviceGuard on(self.device());
    auto larger = memory.allocate(needed);
    std::memcpy(larger.get(), storage.data(), storage.nbytes());
    storage.set_data_ptr_noswap(std::move(larger));
    storage.set_nbytes(needed);
  }
  impl->set_sizes_contiguous(size);
  return self;
}

const std::set<std::string> INDEXING{
    "aten::index", "aten::index_put_", "aten::_index_put_impl_", "aten::index_put", "aten::_unsafe_index"};
const std::set<std::string> PRODUCTS{
    "aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::dot", "aten::mv", "aten::addmv"};
const std::set<std::string> WAITING{"aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::unique_dim"};

// What a GPU refuses among the arguments of an operation.
void check(const Tensor& t, const std::string& name, bool in_list) {
  if (!t.defined()) return;
  if (t.is_cuda()) {
    TORCH_CHECK(t.get_device() == current, name, ": tensors of both GPUs");
    TORCH_CHECK(!PRODUCTS.count(name) || t.is_floating_point() || t.is_complex(),
                "a GPU has no ", name, " of ", t.dtype());
    return;
  }
  bool may_be_host = t.dim() == 0 || (in_list && INDEXING.count(name));
  TORCH_CHECK(may_be_host, name, ": a tensor of the CPU, of shape ", t.sizes(), ", beside tensors of the GPU");
}

c10::Device device_of(const torch::jit::Stack& stack, size_t first) {
  for (size_t i = first; i < stack.size(); i++) {
    if (stack[i].isTensor() && stack[i].toTensor().defined() && stack[i].toTensor().is_cuda())
      return stack[i].toTensor().device();
    if (stack[i].isTensorList())
      for (const auto& t : stack[i].toTensorVector())
        if (t.is_cuda()) return t.device();
  }
  return gpu(current);
}

// Every operation that has no kernel of its own below.
void lend_to_cpu(const c10::OperatorHandle& op, c10::DispatchKeySet, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto& name = schema.name();
  n_waits += WAITING.count(name);
  const size_t n = schema.arguments().size(), first = stack->size() - n;
  std::vector<Tensor> given(n), grown(n);
  c10::DeviceGuard on(device_of(*stack, first));
  auto writes = [&](const c10::AliasInfo* alias) { return alias && alias->isWrite(); };
  for (size_t i = 0; i < n; i++) {
    auto& value = (*stack)[first + i];
    const auto& argument = schema.arguments()[i];
    if (value.isTensor()) {
      given[i] = value.toTensor();
      check(given[i], name, false);
      bool is_out = argument.kwarg_only() && writes(argument.alias_info());
      if (is_out && given[i].is_cuda() && given[i].numel() == 0) {  // borrowed memory cannot grow
        value = grown[i] = at::empty({0}, given[i].options().device(CPU));
      } else {
        value = on_cpu(given[i]);
      }
    } else if (value.isTensorList()) {
      std::vector<Tensor> list;
      for (const auto& t : value.toTensorVector()) {
        check(t, name, true);
        list.push_back(on_cpu(t));
      }
      value = c10::IValue(list);
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> list;
      for (const std::optional<Tensor>& t : value.toOptionalTensorVector()) {
        if (t) check(*t, name, true);
        list.push_back(t ? std::optional<Tensor>(on_cpu(*t)) : std::nullopt);
      }
      value = list;
    } else if (value.isDevice()) {
      value = c10::IValue(CPU);
    }
    TORCH_CHECK(!value.isGenerator(), name, ": a random generator of the CPU, for a tensor of the GPU");
  }
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  for (size_t i = 0; i < n; i++) {
    if (!grown[i].defined() || grown[i].sizes() == given[i].sizes()) continue;
    resized(given[i], grown[i].sizes(), std::nullopt);
    on_cpu(given[i]).copy_(grown[i]);
  }
  const size_t n_results = schema.returns().size(), start = stack->size() - n_results;
  for (size_t r = 0; r < n_results; r++) {
    auto& value = (*stack)[start + r];
    const auto* alias = schema.returns()[r].alias_info();
    if (value.isTensor() && writes(alias)) {  // one of the arguments
      for (size_t i = 0; i < n; i++) {
        const auto* own = schema.arguments()[i].alias_info();
        if (writes(own) && own->beforeSets() == alias->beforeSets()) value = given[i];
      }
    } else if (value.isTensor()) {
      value = on_gpu(value.toTensor());
    } else if (value.isTensorList()) {
      std::vector<Tensor> list;
      for (const auto& t : value.toTensorVector()) list.push_back(on_gpu(t));
      value = c10::IValue(list);
    }
  }
}

c10::ScalarType or_default(std::optional<c10::ScalarType> dtype) {
  return dtype.value_or(c10::get_default_dtype_as_scalartype());
}
Tensor empty(IntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>,
             std::optional<c10::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  c10::OptionalDeviceGuard on(device);
  return at::detail::empty_generic(
      size, &memory, c10::DispatchKeySet(c10::DispatchKey::CUDA), or_default(dtype), format);
}
Tensor empty_strided(IntArrayRef size, IntArrayRef stride, std::optional<c10::ScalarType> dtype,
                     std::optional<c10::Layout>, std::optional<c10::Device> device, std::optional<bool>) {
  c10::OptionalDeviceGuard on(device);
  return at::detail::empty_strided_generic(
      size, stride, &memory, c10::DispatchKeySet(c10::DispatchKey::CUDA), or_default(dtype));
}
Tensor& copy(Tensor& self, const Tensor& other, bool) {
  n_waits += !self.is_cuda();
  on_cpu(self).copy_(on_cpu(other));
  return self;
}
at::Scalar item(const Tensor& self) {
  n_waits++;
  return at::_local_scalar_dense(on_cpu(self));
}
Tensor strided(const Tensor& self, IntArrayRef size, IntArrayRef stride, std::optional<int64_t> offset) {
  return at::native::as_strided_tensorimpl(self, size, stride, offset);
}
Tensor reshape_alias(const Tensor& self, IntArrayRef size, IntArrayRef stride) {
  return strided(self, size, stride, self.storage_offset());
}
Tensor& set_storage(Tensor& self, c10::Storage storage, int64_t offset, IntArrayRef size, IntArrayRef stride) {
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(storage));
  self.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride, offset);
  return self;
}

}  // namespace

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&lend_to_cpu>()); }
TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("resize_", resized);
  m.impl("copy_", copy);
  m.impl("_local_scalar_dense", item);
  m.impl("as_strided", strided);
  m.impl("view", at::native::view);
  m.impl("_reshape_alias", reshape_alias);
  m.impl("set_.source_Storage_storage_offset", set_storage);
  m.impl("view_as_real", at::native::view_as_real);
  m.impl("view_as_complex", at::native::view_as_complex);
  m.impl("unfold", at::native::unfold);
  for (auto name : {"convolution", "convolution_backward"}) {  // else in parts that only GPUs have
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&lend_to_cpu>());
  }
}

extern "C" {
int64_t waits() { return n_waits; }
int current_device() { return current; }
int exchange_device(int index) { return exchange(index); }
}
