// Joint count of instance masks with the instance ground truth of their image.
//
// Contract
//   A gt is a map of 16-bit values, big-endian as PNG holds them. A mask is a map of bytes of the same
//   size; a byte other than 0 belongs to the instance.
//   `mark_values` sets bit v of marks[i] for every value v that occurs in gt i. The host turns the marks
//   into ranks (how many marked values lie below each word of 32), so that value v has index rank(v) among
//   the marked ones, and decides how long each row of counts is.
//   `overlap` adds, for job j, to counts[COUNTS_AT + rank(v)] the pixels where the mask is set and the gt
//   is v. The area of a mask is the sum of its row.
//   MASK_AT -1 is a mask set everywhere: the histogram of the gt.
//   Values that are not marked, or whose rank is not below IDS, are not counted.
//   A gt or a mask whose status is not 0 is skipped.
//
// Shapes
//   gts, masks                   bytes; they may be one buffer
//   gt_jobs                      int64 (gts, GT_FIELDS), see the enum; GT_AT and GT_STRIDE in bytes, even
//   jobs                         int64 (jobs, FIELDS); IMAGE is the row of marks and ranks, COUNTS_AT and IDS
//                                the place and the length of the job's row of counts
//   marks                        uint32 (gts, 2048), zeroed before mark_values
//   ranks                        int32 (gts, 2048)
//   gt_statuses, mask_statuses   int32; *_STATUS is an index, or -1 for a map that has none
//   counts                       uint64, added to
//   grid: (gts or jobs, bands) blocks of THREADS threads; each band of rows is counted on its own
//
// Bounds
//   Pixels are read one by one inside the map, or 16 bytes at a time where all of them are inside a row and
//   the address is a multiple of 16. A value has 16 bits, so its word of marks is below 2048; an index is
//   used only if its value is marked and it is below IDS.
//
// Overflow
//   A run and a counter of a block hold at most the pixels of a map, and `kernels.mask_job` refuses maps of
//   2^32 pixels.
//
// How
//   Nearly all of a mask is zero: 16 bytes of it are one load and one test, and the gt is not read there.
//   As in `confusion`, a thread owns neighbouring columns and walks down its band with a run in registers,
//   and looks up the rank of a value per run. Counters are shared memory up to SHARED_IDS (-D) gt values,
//   copied for several warps where they fit; images with more values than that add runs to global memory.

#define MARK_WORDS 2048  // 65536 values, 32 to a word

enum GtField { GT_AT, GT_STRIDE, GT_STATUS, GT_HEIGHT, GT_WIDTH, GT_FIELDS };

enum Field {
  JOB_GT_AT, JOB_GT_STRIDE, JOB_GT_STATUS, MASK_AT, MASK_STRIDE, MASK_STATUS,
  HEIGHT, WIDTH, IMAGE, COUNTS_AT, IDS, FIELDS
};

// A gt value as the host knows it.
__device__ __forceinline__ unsigned value_of(unsigned stored) { return stored >> 8 | (stored & 255) << 8; }

__device__ __forceinline__ bool aligned(const unsigned char* at) {
  return ((unsigned long long)at & 15) == 0;
}

__device__ __forceinline__ void mark(unsigned* seen, unsigned stored) {
  const unsigned value = value_of(stored);
  atomicOr(seen + value / 32, 1u << value % 32);
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
mark_values(const unsigned char* __restrict__ gts,
            const long long* __restrict__ gt_jobs,  // (gts, GT_FIELDS)
            const int* __restrict__ gt_statuses,
            unsigned* __restrict__ marks) {         // (gts, MARK_WORDS)
  __shared__ unsigned seen[MARK_WORDS];
  const long long* job = gt_jobs + (long long)blockIdx.x * GT_FIELDS;
  if (job[GT_STATUS] >= 0 && gt_statuses[job[GT_STATUS]] != 0) return;
  for (int i = threadIdx.x; i < MARK_WORDS; i += THREADS) seen[i] = 0;
  __syncthreads();

  const int height = (int)job[GT_HEIGHT], width = (int)job[GT_WIDTH];
  const int band = (height + (int)gridDim.y - 1) / (int)gridDim.y;
  const int first = min((int)blockIdx.y * band, height), end = min(first + band, height);
  const int chunks = (width + 7) / 8;
  const int across = max(min(chunks, THREADS), 1);
  const int down = THREADS / across;
  unsigned last = 0x10000;  // the value marked last; at first none
  if ((int)threadIdx.x < across * down) {
    for (int chunk = (int)threadIdx.x % across; chunk < chunks; chunk += across) {
      const int x = chunk * 8, count = min(width - x, 8);
      for (int y = first + (int)threadIdx.x / across; y < end; y += down) {
        const unsigned char* at = gts + job[GT_AT] + y * job[GT_STRIDE] + 2ll * x;
        if (count == 8 && aligned(at)) {
          const uint4 all = *reinterpret_cast<const uint4*>(at);
          const unsigned same = last * 0x10001u;
          if (last < 0x10000 && all.x == same && all.y == same && all.z == same && all.w == same) continue;
        }
        for (int k = 0; k < count; k++) {
          const unsigned stored = reinterpret_cast<const unsigned short*>(at)[k];
          if (stored != last) mark(seen, stored);
          last = stored;
        }
      }
    }
  }
  __syncthreads();

  unsigned* of_image = marks + (long long)blockIdx.x * MARK_WORDS;
  for (int i = threadIdx.x; i < MARK_WORDS; i += THREADS) {
    if (seen[i]) atomicOr(of_image + i, seen[i]);
  }
}

// Where runs go: `shared_row` where the image's values fit, else `row` in global memory.
struct Target {
  unsigned* shared_row;
  unsigned long long* row;
  const unsigned* marks;
  const int* ranks;
  int ids;
};

__device__ __forceinline__ void add(const Target& target, unsigned stored, unsigned pixels) {
  if (pixels == 0) return;
  const unsigned value = value_of(stored);
  const unsigned word = target.marks[value / 32], bit = 1u << value % 32;
  const int index = target.ranks[value / 32] + __popc(word & (bit - 1));
  if ((word & bit) == 0 || index < 0 || index >= target.ids) return;
  if (target.shared_row) {
    atomicAdd(target.shared_row + index, pixels);
  } else {
    atomicAdd(target.row + index, (unsigned long long)pixels);
  }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
overlap(const unsigned char* __restrict__ gts,
        const unsigned char* __restrict__ masks,
        const long long* __restrict__ jobs,      // (jobs, FIELDS)
        const unsigned* __restrict__ marks,      // (gts, MARK_WORDS)
        const int* __restrict__ ranks,           // (gts, MARK_WORDS)
        const int* __restrict__ gt_statuses,
        const int* __restrict__ mask_statuses,
        unsigned long long* __restrict__ counts) {
  __shared__ unsigned shared_counts[SHARED_IDS];
  const long long* job = jobs + (long long)blockIdx.x * FIELDS;
  if (job[JOB_GT_STATUS] >= 0 && gt_statuses[job[JOB_GT_STATUS]] != 0) return;
  if (job[MASK_STATUS] >= 0 && mask_statuses[job[MASK_STATUS]] != 0) return;

  const int ids = (int)job[IDS];
  const int copies = min(SHARED_IDS / max(ids, 1), THREADS / 32);
  for (int i = threadIdx.x; i < copies * ids; i += THREADS) shared_counts[i] = 0;
  __syncthreads();

  const long long table = job[IMAGE] * MARK_WORDS;
  unsigned long long* row = counts + job[COUNTS_AT];
  unsigned* copy = copies ? shared_counts + (int)(threadIdx.x / 32) % max(copies, 1) * ids : nullptr;
  const Target target = {copy, row, marks + table, ranks + table, ids};
  const bool everywhere = job[MASK_AT] < 0;
  const int height = (int)job[HEIGHT], width = (int)job[WIDTH];
  const int band = (height + (int)gridDim.y - 1) / (int)gridDim.y;
  const int first = min((int)blockIdx.y * band, height), end = min(first + band, height);
  const int chunks = (width + 15) / 16;
  const int across = max(min(chunks, THREADS), 1);
  const int down = THREADS / across;
  unsigned stored = 0, pixels = 0;  // the run at hand
  if ((int)threadIdx.x < across * down) {
    for (int chunk = (int)threadIdx.x % across; chunk < chunks; chunk += across) {
      const int x = chunk * 16, count = min(width - x, 16);
      for (int y = first + (int)threadIdx.x / across; y < end; y += down) {
        const unsigned char* mask = masks + (everywhere ? 0 : job[MASK_AT] + y * job[MASK_STRIDE] + x);
        if (!everywhere && count == 16 && aligned(mask)) {
          const uint4 all = *reinterpret_cast<const uint4*>(mask);
          if ((all.x | all.y | all.z | all.w) == 0) continue;
        }
        const unsigned char* gt = gts + job[JOB_GT_AT] + y * job[JOB_GT_STRIDE] + 2ll * x;
        for (int k = 0; k < count; k++) {
          if (!everywhere && mask[k] == 0) continue;
          const unsigned next = reinterpret_cast<const unsigned short*>(gt)[k];
          if (next != stored) {
            add(target, stored, pixels);
            stored = next;
            pixels = 0;
          }
          pixels++;
        }
      }
    }
  }
  add(target, stored, pixels);
  __syncthreads();

  for (int i = threadIdx.x; copies && i < ids; i += THREADS) {
    unsigned long long total = 0;
    for (int k = 0; k < copies; k++) total += shared_counts[k * ids + i];
    if (total) atomicAdd(row + i, total);
  }
}
