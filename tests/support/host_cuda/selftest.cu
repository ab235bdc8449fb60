// Kernels that are right, and kernels that are wrong in one way each, for the tests of the host executor.
#define ALL 0xffffffffu

__device__ __forceinline__ unsigned sum_over_lanes(unsigned value) {
  for (int step = 16; step; step /= 2) value += __shfl_xor_sync(ALL, value, step);
  return value;
}

// Sums of `THREADS` neighbours: into[block] = sum of from[block * THREADS ...].
extern "C" __global__ void block_sums(const unsigned* from, unsigned* into, int n) {
  __shared__ unsigned sums[THREADS / 32];
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  unsigned sum = sum_over_lanes(i < n ? from[i] : 0u);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    unsigned total = 0;
    for (int w = 0; w < THREADS / 32; w++) total += sums[w];
    into[blockIdx.x] = total;
  }
}

// The same without its barrier: right where the warp that adds comes last.
extern "C" __global__ void __launch_bounds__(THREADS)
block_sums_without_barrier(const unsigned* from, unsigned* into, int n) {
  __shared__ unsigned sums[THREADS / 32];
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  unsigned sum = sum_over_lanes(i < n ? from[i] : 0u);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  if (threadIdx.x == THREADS - 1) {
    unsigned total = 0;
    for (int w = 0; w < THREADS / 32; w++) total += sums[w];
    into[blockIdx.x] = total;
  }
}

// Reads one element too many.
extern "C" __global__ void overread(const unsigned* from, unsigned* into, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i <= n) into[0] = from[i];
}

extern "C" __global__ void shared_overwrite(unsigned* into) {
  __shared__ unsigned few[8];
  few[threadIdx.x] = threadIdx.x;
  __syncthreads();
  if (threadIdx.x < 8) into[threadIdx.x] = few[threadIdx.x];
}

extern "C" __global__ void shift_too_far(unsigned* into, int by) { into[0] = 1 << by; }

// Lanes write, others read: ordered by __syncwarp, or by nothing.
extern "C" __global__ void reversed_lanes(unsigned* into, int ordered) {
  __shared__ unsigned values[32];
  values[threadIdx.x] = threadIdx.x;
  if (ordered)
    __syncwarp();
  else
    __shfl_sync(ALL, threadIdx.x, 0);
  into[threadIdx.x] = values[31 - threadIdx.x];
}

extern "C" __global__ void racing_blocks(unsigned* into) { into[0] = blockIdx.x; }

extern "C" __global__ void atomic_blocks(unsigned* into, unsigned long long* wide) {
  atomicAdd(&into[0], 1u);
  atomicAdd(&wide[0], 1ull << 40);
  atomicMax(&into[1], threadIdx.x);
}

extern "C" __global__ void two_barriers(unsigned* into) {
  if (threadIdx.x < 7)
    __syncthreads();
  else
    __syncthreads();
  into[threadIdx.x] = 1;
}

extern "C" __global__ void two_votes(unsigned* into) {
  unsigned vote;
  if (threadIdx.x < 7)
    vote = __ballot_sync(ALL, true);
  else
    vote = __ballot_sync(ALL, false);
  into[threadIdx.x] = vote;
}

extern "C" __global__ void one_lane_elsewhere(unsigned* into) {
  if (threadIdx.x == 3)
    __syncthreads();
  else
    into[0] = __shfl_sync(ALL, threadIdx.x, 3);
}

extern "C" __global__ void half_a_mask(unsigned* into) {
  if (threadIdx.x < 16) into[0] = __ballot_sync(0xffffu, true);
}

extern "C" __global__ void shuffle_from_the_dead(unsigned* into) {
  if (threadIdx.x == 3) return;
  into[threadIdx.x] = __shfl_sync(ALL, threadIdx.x, 3);
}

// One value per intrinsic, in the order of the test.
extern "C" __global__ void intrinsics(const unsigned* a, unsigned* r) {
  int i = 0;
  r[i++] = __popc(a[0]);
  r[i++] = __clz((int)a[0]);
  r[i++] = __clz(0);
  r[i++] = __ffs((int)a[0]);
  r[i++] = __ffs(0);
  r[i++] = __brev(a[0]);
  r[i++] = __funnelshift_r(a[0], a[1], 8);
  r[i++] = __funnelshift_r(a[0], a[1], 32);
  r[i++] = __funnelshift_l(a[0], a[1], 8);
  r[i++] = __byte_perm(a[0], a[1], 0x0123);
  r[i++] = __byte_perm(a[0], a[1], 0x7654);
  r[i++] = __dp4a(a[0], 0x03020100u, 5u);
  r[i++] = __umulhi(a[0], a[1]);
  r[i++] = min(a[0], a[1]);
  r[i++] = max(3, -4);
}

extern "C" __global__ void warp_functions(unsigned* r) {
  unsigned lane = threadIdx.x;
  unsigned up = __shfl_up_sync(ALL, lane, 3), down = __shfl_down_sync(ALL, lane, 3);
  unsigned same = __match_any_sync(ALL, lane / 8), even = __ballot_sync(ALL, lane % 2 == 0);
  bool any = __any_sync(ALL, lane == 40), all = __all_sync(ALL, lane < 32);
  unsigned long long wide = __shfl_sync(ALL, (unsigned long long)lane << 40, 5);
  uint4* quad = (uint4*)(r + 4 * lane);
  unsigned last = lane == 0 ? even : lane == 1 ? any : lane == 2 ? all : (unsigned)(wide >> 40);
  *quad = make_uint4(up, down, same, last);
}
