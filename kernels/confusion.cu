// Joint count of two label maps per pair: one confusion matrix each, rows gt, columns prediction.
//
// Contract
//   Pair i is two maps shown on one target grid of HEIGHT x WIDTH pixels. Target pixel (y, x) of a side is
//   the label at row rows[y], column columns[x] of its map; ROWS or COLUMNS -1 means the identity. A label
//   v < 256 counts as class table[v], any other label (negative ones too) as class `classes` - 1,
//   "outside"; so do table entries that are no class (`engines.semantic.to_classes` says it readably). Adds the pixels of every (gt class, pred class) to
//   cells[i].
//   A pair with a map whose status is not 0 is skipped.
//   GT_BYTES and PRED_BYTES (-D): bytes per label, 1, 2, 4 or 8, little-endian, signed or not. PNG maps and
//   plain uint8 arrays are 1 and 1, and the fast case.
//
// Shapes
//   gts, preds                 bytes; they may be one buffer
//   pairs                      int64 (pairs, FIELDS), see the enum; AT and STRIDE are in bytes and multiples
//                              of the label's size (any such: rows of a PNG with filter bytes, crops)
//   tables                     int32, the index tables of all pairs; ROWS and COLUMNS say where one begins
//   gt_table, pred_table       uint16 (256,)
//   gt_statuses, pred_statuses int32; *_STATUS is an index, or -1 for a map that has none
//   cells                      uint64 (pairs, classes, classes), added to
//   grid: (pairs, bands) blocks of THREADS threads; each band of rows is counted on its own
//
// Bounds
//   Labels are read one by one at table or identity positions inside the target grid, or 16 at a time where
//   all 16 are inside and the address is a multiple of 16: never a byte that is not a label of the map. The
//   tables hold positions of the map (`engines.resize.index_table` makes them). Classes are clamped below
//   `classes` as they enter shared memory, labels below 257 before they look a class up, so every cell is
//   below classes^2.
//
// Overflow
//   A thread's run and a block's counter hold at most the pixels of one target grid, and `kernels.pair_job`
//   refuses grids of 2^32 pixels. The sums over bands are 64 bits wide.
//
// How
//   Label maps are piecewise constant in both directions. A thread owns a few neighbouring columns (16
//   bytes of labels) and walks down the rows of its band, keeping the pair of labels at hand and how many
//   pixels it lasted; it adds only when the pair changes. So one add stands for many pixels, and threads of
//   a warp, being 16 columns apart, seldom add to one cell at one time.
//   Tables are looked up per run, not per pixel. Counters are shared memory, one copy for as many warps as
//   fit into SHARED_CELLS (-D); each block adds its non-zero cells to the matrix once.
//   Matrices over SHARED_CELLS (65 to 256 classes) get their runs added to global memory directly: right,
//   and slower only where maps are noise.

#define LABELS 257  // 0..255, and one index for every other label
#define PIXELS (16 / (GT_BYTES > PRED_BYTES ? GT_BYTES : PRED_BYTES))  // neighbouring columns of a thread

enum Field {
  GT_AT, GT_STRIDE, GT_ROWS, GT_COLUMNS, GT_STATUS,
  PRED_AT, PRED_STRIDE, PRED_ROWS, PRED_COLUMNS, PRED_STATUS,
  HEIGHT, WIDTH, FIELDS
};

// A thread's count in progress: the pair of labels at hand, gt in the high half, and its pixels so far.
struct Run {
  unsigned labels, pixels;
};

// Where runs go: `counts` in shared memory, or `cells` in global memory where counts is null.
struct Target {
  unsigned* counts;
  unsigned long long* cells;
  const unsigned short *gt_class, *pred_class;
  int classes;
};

__device__ __forceinline__ void add(const Target& target, const Run& run) {
  if (run.pixels == 0) return;
  const int gt = target.gt_class[run.labels >> 16], pred = target.pred_class[run.labels & 0xffff];
  const int cell = gt * target.classes + pred;
  if (target.counts) {
    atomicAdd(target.counts + cell, run.pixels);
  } else {
    atomicAdd(target.cells + cell, (unsigned long long)run.pixels);
  }
}

__device__ __forceinline__ void take(const Target& target, Run& run, unsigned gt, unsigned pred) {
  const unsigned labels = gt << 16 | pred;
  if (labels != run.labels) {
    add(target, run);
    run.labels = labels;
    run.pixels = 0;
  }
  run.pixels++;
}

// The index of a label in a table of LABELS entries. A negative label is a huge unsigned one.
template <int BYTES>
__device__ __forceinline__ unsigned label(const unsigned char* row, int x) {
  if (BYTES == 1) return row[x];
  unsigned long long value;
  if (BYTES == 2) value = reinterpret_cast<const unsigned short*>(row)[x];
  else if (BYTES == 4) value = reinterpret_cast<const unsigned*>(row)[x];
  else value = reinterpret_cast<const unsigned long long*>(row)[x];
  return value < 256 ? (unsigned)value : 256;
}

// 16 neighbouring one-byte labels of a row of the target, of which `count` exist.
__device__ __forceinline__ void load(const unsigned char* row, const int* columns, int x, int count,
                                     unsigned (&words)[4]) {
  if (!columns && count == 16 && ((unsigned long long)(row + x) & 15) == 0) {
    const uint4 all = *reinterpret_cast<const uint4*>(row + x);
    words[0] = all.x, words[1] = all.y, words[2] = all.z, words[3] = all.w;
    return;
  }
#pragma unroll
  for (int k = 0; k < 4; k++) words[k] = 0;
#pragma unroll
  for (int k = 0; k < 16; k++) {
    if (k < count) words[k / 4] |= (unsigned)row[columns ? columns[x + k] : x + k] << 8 * (k & 3);
  }
}

// Count `count` neighbouring pixels of one row of the target.
__device__ __forceinline__ void count_pixels(const unsigned char* gt, const int* gt_columns,
                                             const unsigned char* pred, const int* pred_columns, int x,
                                             int count, const Target& target, Run& run) {
#if GT_BYTES == 1 && PRED_BYTES == 1
  unsigned g[4], p[4];
  load(gt, gt_columns, x, count, g);
  load(pred, pred_columns, x, count, p);
  const unsigned same_gt = (run.labels >> 16) * 0x01010101u, same_pred = (run.labels & 0xffff) * 0x01010101u;
  const unsigned change = (g[0] ^ same_gt) | (g[1] ^ same_gt) | (g[2] ^ same_gt) | (g[3] ^ same_gt) |
                          (p[0] ^ same_pred) | (p[1] ^ same_pred) | (p[2] ^ same_pred) | (p[3] ^ same_pred);
  if (count == 16 && change == 0) {
    run.pixels += 16;
    return;
  }
#pragma unroll 1
  for (int k = 0; k < count; k++) {  // the words are a queue, and one place adds instead of sixteen
    take(target, run, g[0] & 255, p[0] & 255);
    g[0] >>= 8, p[0] >>= 8;
    if ((k & 3) == 3) {
      g[0] = g[1], g[1] = g[2], g[2] = g[3];
      p[0] = p[1], p[1] = p[2], p[2] = p[3];
    }
  }
#else
#pragma unroll 1
  for (int k = 0; k < count; k++) {
    take(target, run, label<GT_BYTES>(gt, gt_columns ? gt_columns[x + k] : x + k),
         label<PRED_BYTES>(pred, pred_columns ? pred_columns[x + k] : x + k));
  }
#endif
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
confusion(const unsigned char* __restrict__ gts,
          const unsigned char* __restrict__ preds,
          const long long* __restrict__ pairs,             // (pairs, FIELDS)
          const int* __restrict__ tables,
          const unsigned short* __restrict__ gt_table,     // (256,)
          const unsigned short* __restrict__ pred_table,   // (256,)
          const int* __restrict__ gt_statuses,
          const int* __restrict__ pred_statuses,
          unsigned long long* __restrict__ cells,          // (pairs, classes, classes)
          int classes) {                                   // with void and outside
  __shared__ unsigned counts[SHARED_CELLS];
  __shared__ unsigned short gt_class[LABELS];
  __shared__ unsigned short pred_class[LABELS];
  const long long* pair = pairs + (long long)blockIdx.x * FIELDS;
  if (pair[GT_STATUS] >= 0 && gt_statuses[pair[GT_STATUS]] != 0) return;
  if (pair[PRED_STATUS] >= 0 && pred_statuses[pair[PRED_STATUS]] != 0) return;

  const int area = classes * classes;
  const int copies = min(SHARED_CELLS / area, THREADS / 32);
  for (int i = threadIdx.x; i < copies * area; i += THREADS) counts[i] = 0;
  for (int i = threadIdx.x; i < LABELS; i += THREADS) {
    gt_class[i] = (unsigned short)min(i < 256 ? (int)gt_table[i] : classes - 1, classes - 1);
    pred_class[i] = (unsigned short)min(i < 256 ? (int)pred_table[i] : classes - 1, classes - 1);
  }
  __syncthreads();

  unsigned long long* matrix = cells + (long long)blockIdx.x * area;
  unsigned* copy = copies ? counts + (int)(threadIdx.x / 32) % max(copies, 1) * area : nullptr;
  const Target target = {copy, matrix, gt_class, pred_class, classes};
  const int* gt_rows = pair[GT_ROWS] < 0 ? nullptr : tables + pair[GT_ROWS];
  const int* gt_columns = pair[GT_COLUMNS] < 0 ? nullptr : tables + pair[GT_COLUMNS];
  const int* pred_rows = pair[PRED_ROWS] < 0 ? nullptr : tables + pair[PRED_ROWS];
  const int* pred_columns = pair[PRED_COLUMNS] < 0 ? nullptr : tables + pair[PRED_COLUMNS];
  const int height = (int)pair[HEIGHT], width = (int)pair[WIDTH];
  const long long gt_stride = pair[GT_STRIDE], pred_stride = pair[PRED_STRIDE];
  const unsigned char* gt = gts + pair[GT_AT];
  const unsigned char* pred = preds + pair[PRED_AT];

  // Threads stand side by side in a row, and where a row does not fill the block, in several rows.
  const int band = (height + (int)gridDim.y - 1) / (int)gridDim.y;
  const int first = min((int)blockIdx.y * band, height), end = min(first + band, height);
  const int chunks = (width + PIXELS - 1) / PIXELS;
  const int across = max(min(chunks, THREADS), 1);
  const int down = THREADS / across;
  const int start = first + (int)threadIdx.x / across;
  Run run = {0, 0};
  if ((int)threadIdx.x < across * down) {
    for (int chunk = (int)threadIdx.x % across; chunk < chunks; chunk += across) {
      const int x = chunk * PIXELS, count = min(width - x, PIXELS);
      for (int y = start; y < end; y += down) {
        count_pixels(gt + (gt_rows ? gt_rows[y] : y) * gt_stride, gt_columns,
                     pred + (pred_rows ? pred_rows[y] : y) * pred_stride, pred_columns, x, count, target,
                     run);
      }
    }
  }
  add(target, run);
  __syncthreads();

  for (int i = threadIdx.x; copies && i < area; i += THREADS) {
    unsigned long long pixels = 0;
    for (int k = 0; k < copies; k++) pixels += counts[k * area + i];
    if (pixels) atomicAdd(matrix + i, pixels);
  }
}
