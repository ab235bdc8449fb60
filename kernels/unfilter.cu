// Undoes PNG's row filters (PNG specification, section 9), one warp per image.
//
// Contract
//   Image i is rows of `1 + width * BPP` bytes at raw + raw_at[i]: a filter type, then filtered bytes.
//   Its pixels are written to rows of `pitch` bytes at pixels + pixels_at[i], where pitch is width * BPP
//   rounded up to 16. Bytes between the end of a row and its pitch are written and mean nothing.
//   BPP (-D) is the number of bytes per pixel: 1 (8-bit grey or palette) or 2 (16-bit grey). Samples keep
//   PNG's byte order, so 16-bit pixels come out big-endian.
//   statuses[i] other than 0 on entry: the image is skipped. A filter type above 4 sets it to
//   UNKNOWN_FILTER (-D); rows from there on are not written. No image disturbs another.
//
// Shapes
//   raw        bytes; every raw_at[i] is a multiple of 16, and so is the size of the buffer
//   pixels     bytes; every pixels_at[i] is a multiple of 16; slots of height * pitch bytes do not overlap
//   raw_at, pixels_at                int64 (images,)
//   heights, widths, statuses        int32 (images,)
//   grid: ceil(images / WARPS) blocks of WARPS * 32 threads
//
// Bounds
//   Reads of raw are aligned 4-byte words that hold at least one byte of the row they are read for; as
//   slots begin at multiples of 16 and the buffer ends at one, no such word leaves the buffer. Writes are
//   16-byte words below `pitch` of a row below `height`. Shared memory is indexed by warp, lane and a tile
//   below TILES. A pixel has at most 2 bytes and a map at most 2^27 pixels, so a row fits an int.
//
// How
//   A row is walked in tiles of 512 bytes, 16 for each lane. The row above sits in shared memory (of rows
//   wider than TILES tiles, the rest is read back from `pixels`), and a lane only ever reads what it wrote
//   itself, so no barrier is needed. Raw rows start at odd addresses; five aligned words are fetched and
//   shifted, and those of the next tile are on their way while this one is worked on.
//   None and Up are elementwise. Sub is a scan. Paeth and Average run along the row, and a label map lets
//   most of a row escape that: with zero residuals, a tile entered with left == above-left is the row above
//   (Paeth), and a lane whose stretch of the row above is flat hands its left pixel through, whatever it
//   is. The other lanes ("walkers") guess their left pixel and walk their 16 bytes all at once. Then each
//   takes the last byte of the nearest walker to its left and walks again if that is not what it had, until
//   nothing changes. The leftmost walker is right from the start, and each round makes at least the next
//   one right, so the result is exact after at most 32 rounds. Street label maps take two.

#define FULL 0xffffffffu

static_assert(BPP == 1 || BPP == 2, "bytes per pixel");

// Sum of four bytes each, modulo 256.
__device__ __forceinline__ unsigned add_bytes(unsigned x, unsigned y) {
  return ((x & 0x7f7f7f7fu) + (y & 0x7f7f7f7fu)) ^ ((x ^ y) & 0x80808080u);
}

// The last pixel of a word, and a word full of one pixel.
__device__ __forceinline__ unsigned last_of(unsigned word) { return word >> (32 - 8 * BPP); }
__device__ __forceinline__ unsigned full_of(unsigned pixel) {
  return pixel * (BPP == 1 ? 0x01010101u : 0x00010001u);
}

// Five aligned words around the 16 bytes at row + x, of which only those before row + size are touched.
__device__ __forceinline__ void fetch(const unsigned char* row, int size, int x, unsigned (&words)[5]) {
  const int before = (int)((unsigned long long)row & 3);
  const unsigned* aligned = reinterpret_cast<const unsigned*>(row - before);
#pragma unroll
  for (int k = 0; k < 5; k++) words[k] = x + 4 * k < size + before ? aligned[x / 4 + k] : 0;
}

// The 16 bytes at row + x out of what `fetch` got; zero from row + size on.
__device__ __forceinline__ void align(const unsigned char* row, int size, int x, const unsigned (&words)[5],
                                      unsigned (&bytes)[4]) {
  const int shift = 8 * (int)((unsigned long long)row & 3);
#pragma unroll
  for (int k = 0; k < 4; k++) {
    const int left = size - x - 4 * k;
    const unsigned inside = left >= 4 ? FULL : left <= 0 ? 0 : (1u << 8 * left) - 1;
    bytes[k] = __funnelshift_r(words[k], words[k + 1], shift) & inside;
  }
}

// Section 9.4: a = left, b = above, c = above left.
__device__ __forceinline__ int paeth(int a, int b, int c) {
  const int to_a = b > c ? b - c : c - b;
  const int to_b = a > c ? a - c : c - a;
  const int both = a + b - c - c;
  const int to_c = both < 0 ? -both : both;
  return to_a <= to_b && to_a <= to_c ? a : to_b <= to_c ? b : c;
}

// Sub: sums of residuals within the word, within the lane, across the warp.
__device__ __forceinline__ void sub(const unsigned (&residual)[4], unsigned left, int lane,
                                    unsigned (&row)[4]) {
  const bool flat = (residual[0] | residual[1] | residual[2] | residual[3]) == 0;
  if (__all_sync(FULL, flat)) {
#pragma unroll
    for (int k = 0; k < 4; k++) row[k] = full_of(left);
    return;
  }
#pragma unroll
  for (int k = 0; k < 4; k++) {
    unsigned sum = residual[k];
    if (BPP == 1) sum = add_bytes(sum, sum << 8);
    sum = add_bytes(sum, sum << 16);
    row[k] = k == 0 ? sum : add_bytes(sum, full_of(last_of(row[k > 0 ? k - 1 : 0])));
  }
  unsigned upto = last_of(row[3]);
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const unsigned other = __shfl_up_sync(FULL, upto, step);
    if (lane >= step) upto = add_bytes(upto, other);
  }
  const unsigned before = __shfl_up_sync(FULL, upto, 1);
  // Only the low BPP bytes of a sum of last pixels are filled, so it never spills into a next pixel.
  const unsigned base = full_of(lane == 0 ? left : add_bytes(before, left));
#pragma unroll
  for (int k = 0; k < 4; k++) row[k] = add_bytes(row[k], base);
}

// One lane's 16 bytes, given the pixel left of them.
template <bool PAETH>
__device__ __forceinline__ void walk(const unsigned (&residual)[4], const unsigned (&above)[4],
                                     const unsigned (&corner)[4], unsigned left, unsigned (&row)[4]) {
  int a[BPP];
#pragma unroll
  for (int k = 0; k < BPP; k++) a[k] = left >> 8 * k & 255;
#pragma unroll
  for (int k = 0; k < 4; k++) row[k] = 0;
#pragma unroll
  for (int k = 0; k < 16; k++) {
    const int shift = 8 * (k & 3);
    const int b = above[k / 4] >> shift & 255;
    const int c = corner[k / 4] >> shift & 255;
    const int predictor = PAETH ? paeth(a[k % BPP], b, c) : (a[k % BPP] + b) >> 1;
    const int value = ((residual[k / 4] >> shift & 255) + predictor) & 255;
    a[k % BPP] = value;
    row[k / 4] |= (unsigned)value << shift;
  }
}

// Paeth or Average of one tile; `left` and `above_left` are the pixels before the tile.
template <bool PAETH>
__device__ __forceinline__ void run_along(const unsigned (&residual)[4], const unsigned (&above)[4],
                                          unsigned left, unsigned above_left, int lane,
                                          unsigned (&row)[4]) {
  const unsigned neighbour = __shfl_up_sync(FULL, above[3], 1);
  const unsigned before = lane == 0 ? above_left : last_of(neighbour);
  unsigned corner[4];
  bool flat = true;  // the row above repeats the pixel before it (Paeth), or `left` (Average)
#pragma unroll
  for (int k = 0; k < 4; k++) {
    const unsigned pixel = k == 0 ? before : last_of(above[k > 0 ? k - 1 : 0]);
    corner[k] = above[k] << 8 * BPP | pixel;
    flat = flat && (PAETH ? above[k] == corner[k] : above[k] == full_of(left));
  }
  const bool zero = (residual[0] | residual[1] | residual[2] | residual[3]) == 0;
  if (__all_sync(FULL, PAETH ? zero && left == above_left : zero && flat)) {
#pragma unroll
    for (int k = 0; k < 4; k++) row[k] = above[k];
    return;
  }
  const bool walker = !(PAETH && zero && flat);
  const unsigned walkers = __ballot_sync(FULL, walker) & ((1u << lane) - 1);
  const int source = 31 - __clz((int)walkers);  // -1: no walker to the left
  unsigned taken = lane == 0 ? left : before;
  bool stale = walker;
#pragma unroll
  for (int k = 0; k < 4; k++) row[k] = 0;
  for (;;) {
    if (stale) walk<PAETH>(residual, above, corner, taken, row);
    const unsigned given = __shfl_sync(FULL, last_of(row[3]), source & 31);
    const unsigned right = source < 0 ? left : given;
    stale = right != taken;
    if (!__any_sync(FULL, stale)) break;
    taken = right;
    stale = stale && walker;
  }
  if (!walker) {
#pragma unroll
    for (int k = 0; k < 4; k++) row[k] = full_of(taken);
  }
}

extern "C" __global__ void __launch_bounds__(WARPS * 32, BLOCKS)
unfilter(const unsigned char* __restrict__ raw,      // the inflated images
         const long long* __restrict__ raw_at,       // (images,)
         const int* __restrict__ heights,            // (images,)
         const int* __restrict__ widths,             // (images,), pixels
         unsigned char* __restrict__ pixels,         // the unfiltered images
         const long long* __restrict__ pixels_at,    // (images,)
         int* __restrict__ statuses,                 // (images,), 0 or why the image has no pixels
         int images) {
  __shared__ uint4 rows[WARPS * TILES * 32];
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int image = blockIdx.x * WARPS + warp;
  if (image >= images || statuses[image] != 0) return;
  const int height = heights[image], size = widths[image] * BPP;
  if (height <= 0 || size <= 0) return;
  const int words = (size + 15) / 16;  // of 16 bytes in a row of pixels
  const int tiles = (words + 31) / 32;
  uint4* mine = rows + warp * TILES * 32 + lane;
  const unsigned char* from = raw + raw_at[image] + 1;
  uint4* to = reinterpret_cast<uint4*>(pixels + pixels_at[image]) + lane;

  unsigned ahead[5];
  fetch(from, size, lane * 16, ahead);
  int kind_ahead = from[-1];
  for (int y = 0; y < height; y++) {
    const int kind = kind_ahead;
    if (kind > 4) {
      __syncwarp();  // all lanes have read the status that is overwritten
      if (lane == 0) statuses[image] = UNKNOWN_FILTER;
      return;
    }
    unsigned left = 0, above_left = 0;  // the pixels before the tile
    for (int tile = 0; tile < tiles; tile++) {
      const int word = tile * 32 + lane;
      unsigned residual[4], row[4];
      align(from, size, word * 16, ahead, residual);
      if (tile + 1 < tiles) {
        fetch(from, size, (word + 32) * 16, ahead);
      } else if (y + 1 < height) {
        fetch(from + size + 1, size, lane * 16, ahead);
        kind_ahead = from[size];
      }
      uint4 above4 = make_uint4(0, 0, 0, 0);
      if (y > 0) {
        if (tile < TILES) above4 = mine[tile * 32];
        else if (word < words) above4 = to[tile * 32 - words];
      }
      const unsigned above[4] = {above4.x, above4.y, above4.z, above4.w};
      if (kind == 1) {
        sub(residual, left, lane, row);
      } else if (kind == 3) {
        run_along<false>(residual, above, left, above_left, lane, row);
      } else if (kind == 4) {
        run_along<true>(residual, above, left, above_left, lane, row);
      } else {
#pragma unroll
        for (int k = 0; k < 4; k++) row[k] = kind == 0 ? residual[k] : add_bytes(residual[k], above[k]);
      }
      const uint4 done = make_uint4(row[0], row[1], row[2], row[3]);
      if (tile < TILES) mine[tile * 32] = done;
      if (word < words) to[tile * 32] = done;
      left = __shfl_sync(FULL, last_of(row[3]), 31);
      above_left = __shfl_sync(FULL, last_of(above[3]), 31);
    }
    from += size + 1;
    to += words;
  }
}
