// What a kernel sees when g++ compiles it: the CUDA C names it may use, spelled for the host.
//
// Force-included before the unmodified .cu text. Only what the kernel rules allow is here: full masks, static
// shared memory, integer atomics. Anything else is a compile error, which is the point.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#define HOST_CUDA 1
#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))

using std::max;
using std::min;

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
struct alignas(8) int2 { int x, y; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(4) uchar4 { unsigned char x, y, z, w; };
struct alignas(2) uchar2 { unsigned char x, y; };
struct alignas(4) ushort2 { unsigned short x, y; };
struct alignas(8) ushort4 { unsigned short x, y, z, w; };
struct alignas(16) longlong2 { long long x, y; };
struct alignas(16) ulonglong2 { unsigned long long x, y; };
inline int2 make_int2(int x, int y) { return {x, y}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) { return {x, y}; }

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
static constexpr int warpSize = 32;

// The doors to runtime.cpp, which is never compiled with -fsanitize=thread.
namespace host_cuda {
enum Operation { SHUFFLE = 1, BALLOT, MATCH, REDUCE, SYNCWARP };
// One value of each lane; `present` names the lanes that took part.
struct Votes { uint64_t value[32]; unsigned present; };

void barrier(int line);
const Votes& meet(unsigned mask, uint64_t value, Operation operation, int line);
void* shared(int id, size_t bytes);
unsigned lane();
[[noreturn]] void fail(const char* message, int line);

template <class T> uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8, "a warp primitive takes at most 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}
template <class T> T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// A wrapper, so that an array type can be aligned like its __align__ says.
template <size_t ALIGN, class T> struct alignas(ALIGN ? ALIGN : alignof(T)) Aligned { T it; };

template <class T> T& shared_array(int id) { return *static_cast<T*>(shared(id, sizeof(T))); }

template <class T> T shuffle(unsigned mask, T value, int source, bool in_range, int line) {
  const Votes& votes = meet(mask, to_bits(value), SHUFFLE, line);
  if (!in_range) return value;
  if (!(votes.present >> source & 1)) fail("shuffle reads a lane that has exited", line);
  return from_bits<T>(votes.value[source]);
}
template <class T> T shuffle_to(unsigned m, T v, int source, int line, int width = 32) {
  return shuffle(m, v, (int(lane()) & ~(width - 1)) + (source & (width - 1)), true, line);
}
template <class T> T shuffle_up(unsigned m, T v, unsigned delta, int line, int width = 32) {
  int source = int(lane()) - int(delta);
  return shuffle(m, v, source, source >= (int(lane()) & ~(width - 1)), line);
}
template <class T> T shuffle_down(unsigned m, T v, unsigned delta, int line, int width = 32) {
  int source = int(lane()) + int(delta);
  return shuffle(m, v, source, source < (int(lane()) & ~(width - 1)) + width, line);
}
template <class T> T shuffle_xor(unsigned m, T v, int bits, int line, int width = 32) {
  int source = int(lane()) ^ bits;
  return shuffle(m, v, source, source < (int(lane()) & ~(width - 1)) + width, line);
}
inline unsigned ballot(unsigned mask, bool vote, int line) {
  const Votes& votes = meet(mask, vote, BALLOT, line);
  unsigned ayes = 0;
  for (int i = 0; i < 32; i++) ayes |= unsigned((votes.present >> i & 1) && votes.value[i]) << i;
  return ayes;
}
template <class T> unsigned match_any(unsigned mask, T value, int line) {
  const Votes& votes = meet(mask, to_bits(value), MATCH, line);
  unsigned same = 0;
  for (int i = 0; i < 32; i++)
    same |= unsigned((votes.present >> i & 1) && votes.value[i] == to_bits(value)) << i;
  return same;
}
template <class T, class F> T reduce(unsigned mask, T value, F combine, int line) {
  const Votes& votes = meet(mask, to_bits(value), REDUCE, line);
  bool first = true;
  T total{};
  for (int i = 0; i < 32; i++) {
    if (!(votes.present >> i & 1)) continue;
    T other = from_bits<T>(votes.value[i]);
    total = first ? other : combine(total, other);
    first = false;
  }
  return total;
}

template <class... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::decay_t<A>*>(arguments[I])...);
}
template <class... A> void call(void (*kernel)(A...), void** arguments) {
  call(kernel, arguments, std::index_sequence_for<A...>{});
}
// The bytes of each parameter, so that the caller's scalars can be checked: CuPy would not.
template <class... A> int sizes(void (*)(A...), int* bytes, int room) {
  const int all[] = {int(sizeof(std::decay_t<A>))..., 0};
  for (int i = 0; i < int(sizeof...(A)) && i < room; i++) bytes[i] = all[i];
  return int(sizeof...(A));
}
}  // namespace host_cuda

#define HOST_CUDA_DOOR extern "C" __attribute__((visibility("default")))
#define HOST_CUDA_EXPORT(k) \
  HOST_CUDA_DOOR void host_cuda_call_##k(void** a) { host_cuda::call(&k, a); } \
  HOST_CUDA_DOOR int host_cuda_sizes_##k(int* b, int n) { return host_cuda::sizes(&k, b, n); }

#define __syncthreads() host_cuda::barrier(__LINE__)
#define __syncwarp(...) \
  ((void)host_cuda::meet(HOST_CUDA_MASK(__VA_ARGS__ __VA_OPT__(, ) ~0u), 0, host_cuda::SYNCWARP, __LINE__))
#define HOST_CUDA_MASK(mask, ...) (mask)
#define __shfl_sync(m, v, s, ...) host_cuda::shuffle_to(m, v, s, __LINE__ __VA_OPT__(, ) __VA_ARGS__)
#define __shfl_up_sync(m, v, d, ...) host_cuda::shuffle_up(m, v, d, __LINE__ __VA_OPT__(, ) __VA_ARGS__)
#define __shfl_down_sync(m, v, d, ...) host_cuda::shuffle_down(m, v, d, __LINE__ __VA_OPT__(, ) __VA_ARGS__)
#define __shfl_xor_sync(m, v, x, ...) host_cuda::shuffle_xor(m, v, x, __LINE__ __VA_OPT__(, ) __VA_ARGS__)
#define __ballot_sync(m, p) host_cuda::ballot(m, bool(p), __LINE__)
#define __any_sync(m, p) (host_cuda::ballot(m, bool(p), __LINE__) != 0)
#define __all_sync(m, p) (host_cuda::ballot(m, !(p), __LINE__) == 0)
#define __match_any_sync(m, v) host_cuda::match_any(m, v, __LINE__)
#define HOST_CUDA_REDUCE(m, v, result) \
  host_cuda::reduce(m, v, [](auto a, auto b) { return result; }, __LINE__)
#define __reduce_add_sync(m, v) HOST_CUDA_REDUCE(m, v, a + b)
#define __reduce_or_sync(m, v) HOST_CUDA_REDUCE(m, v, a | b)
#define __reduce_and_sync(m, v) HOST_CUDA_REDUCE(m, v, (a & b))
#define __reduce_max_sync(m, v) HOST_CUDA_REDUCE(m, v, (a > b ? a : b))
#define __reduce_min_sync(m, v) HOST_CUDA_REDUCE(m, v, (a < b ? a : b))
#define __threadfence() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define __threadfence_block() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define __trap() host_cuda::fail("__trap()", __LINE__)

// CUDA has these for int, unsigned and unsigned long long; atomicAdd on long long does not exist there.
template <class T> constexpr bool atomic_type =
    std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long>;
#define HOST_CUDA_ATOMIC(name, builtin) \
  template <class T, class U> T name(T* p, U v) { \
    static_assert(atomic_type<T>, #name " exists for int, unsigned and unsigned long long"); \
    return builtin(p, T(v), __ATOMIC_RELAXED); \
  }
HOST_CUDA_ATOMIC(atomicAdd, __atomic_fetch_add)
HOST_CUDA_ATOMIC(atomicSub, __atomic_fetch_sub)
HOST_CUDA_ATOMIC(atomicOr, __atomic_fetch_or)
HOST_CUDA_ATOMIC(atomicAnd, __atomic_fetch_and)
HOST_CUDA_ATOMIC(atomicXor, __atomic_fetch_xor)
HOST_CUDA_ATOMIC(atomicExch, __atomic_exchange_n)
template <class T, class U, class V> T atomicCAS(T* p, U expected, V desired) {
  static_assert(atomic_type<T>, "atomicCAS exists for int, unsigned and unsigned long long");
  T old = T(expected);
  __atomic_compare_exchange_n(p, &old, T(desired), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return old;
}
template <class T, class U> T atomicMax(T* p, U v) {
  T old = __atomic_load_n(p, __ATOMIC_RELAXED);
  for (T seen = old; seen < T(v); seen = old)
    if ((old = atomicCAS(p, seen, v)) == seen) break;
  return old;
}
template <class T, class U> T atomicMin(T* p, U v) {
  T old = __atomic_load_n(p, __ATOMIC_RELAXED);
  for (T seen = old; T(v) < seen; seen = old)
    if ((old = atomicCAS(p, seen, v)) == seen) break;
  return old;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; i++) reversed |= (x >> i & 1u) << (31 - i);
  return reversed;
}
inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned s) {
  return unsigned(((uint64_t(hi) << 32) | lo) >> (s & 31));
}
inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned s) {
  return unsigned(((uint64_t(hi) << 32 | lo) << (s & 31)) >> 32);
}
inline unsigned __funnelshift_rc(unsigned lo, unsigned hi, unsigned s) {
  return unsigned(((uint64_t(hi) << 32) | lo) >> (s < 32 ? s : 32));
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  uint64_t bytes = uint64_t(b) << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; i++) {
    unsigned pick = selector >> (4 * i) & 15;
    unsigned byte = unsigned(bytes >> (8 * (pick & 7))) & 255;
    if (pick & 8) byte = byte & 128 ? 255 : 0;  // the sign replicated, as PRMT does
    result |= byte << (8 * i);
  }
  return result;
}
inline unsigned __dp4a(unsigned a, unsigned b, unsigned c) {
  for (int i = 0; i < 32; i += 8) c += (a >> i & 255) * (b >> i & 255);
  return c;
}
template <class F> inline unsigned host_cuda_per_byte(unsigned a, unsigned b, F f) {
  unsigned result = 0;
  for (int i = 0; i < 32; i += 8) result |= (f(a >> i & 255, b >> i & 255) & 255u) << i;
  return result;
}
#define HOST_CUDA_PER_BYTE(name, result) \
  inline unsigned name(unsigned a, unsigned b) { \
    return host_cuda_per_byte(a, b, [](unsigned x, unsigned y) -> unsigned { return result; }); \
  }
HOST_CUDA_PER_BYTE(__vadd4, x + y)
HOST_CUDA_PER_BYTE(__vsub4, x - y)
HOST_CUDA_PER_BYTE(__vavgu4, (x + y + 1) / 2)
HOST_CUDA_PER_BYTE(__vcmpeq4, x == y ? 255 : 0)
HOST_CUDA_PER_BYTE(__vcmpne4, x != y ? 255 : 0)
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
template <class T, class U> void __stcs(T* p, U v) { *p = v; }
template <class T, class U> void __stcg(T* p, U v) { *p = v; }
