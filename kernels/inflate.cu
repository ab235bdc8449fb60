// Inflates zlib streams (RFC 1950, RFC 1951), one warp per stream, thousands of streams at a time.
//
// Contract
//   A stream is a contiguous byte range of the slab. What a PNG splits over several IDAT chunks is first made
//   contiguous by `gather`: walking a list of segments in the bit reader would cost every symbol of every
//   stream a few instructions, while copying costs 2 % of the bytes that the stream expands to, and files of
//   one chunk (Pillow's, up to 64 kB) are read where they were uploaded.
//   A slot of `sizes[i]` bytes receives the output, and statuses[i] says how it went:
//     OK         the slot is full, the stream ended there and its Adler-32 is right
//     CORRUPT    against the RFCs, or a wrong Adler-32
//     SHORT      a whole and valid stream of fewer bytes than the slot
//     TOO_LONG   the stream goes on beyond the slot
//     TRUNCATED  the input ends before the stream does
//     REFUSED    ranges that do not lie inside slab and output, slots unaligned or of more than 2^28 bytes
//   To a stream that is both too long and truncated either may be given.
//   OK is given exactly where zlib accepts: window sizes up to 2^15, no preset dictionary, incomplete codes
//   only of one 1-bit symbol, bytes after the Adler-32 ignored (as in `inputs/png.py`). A slot whose status
//   is not OK holds whatever was written before; its neighbours are untouched.
//
// Bounds
//   Input: whole aligned words that hold at least one byte of the stream; reads beyond give zero bits, and a
//   stream that used one of them is TRUNCATED. Such a stream stops within 128 bytes of its end.
//   Output: a symbol is written only if position + length <= size, and copied only from distance <= position.
//   Word copies read up to 3 bytes before and after the source: not below the slot, which is 16-byte aligned,
//   and not from bytes being written, since they are taken only for distance >= length + 3.
//   Tables: see `deflate_codes.cu`.
//
// Shape
//   A label map is one block of 15,000 to 30,000 symbols (65,000 to 100,000 in 4 to 7 from OpenCV) for 2 MB,
//   and each depends on the one before: nothing is parallel but streams, and the bytes of one match.
//   So all lanes decode the same symbol from the same registers, with no vote and no branch apart, and share
//   the work only where there is some: table building, copies, fills. The chain of one symbol is
//     funnel shift -> mask -> shared load -> add to the bit position          about 45 cycles
//   once per literal or pair of literals, once or twice per match. Fills (distance 1, half of the bytes or
//   more) read no memory: the last byte is kept in a register. Copies wait for L1 or L2 once.
//   What runs once per block is not unrolled: small code keeps the hot loop in the instruction cache.
//   Adler-32 costs no pass over the output: with S1 = sum of b[i] and S2 = sum of i*b[i] over N bytes,
//     A = 1 + S1, B = N + N*S1 - S2   (mod 65521),
//   sums that lanes may gather in any order. They are exact: S2 <= 255 * N^2 / 2 < 2^63 for N <= 2^28.

// Statuses; `engines/cuda/kernels.py` has the same.
#define OK 0
#define CORRUPT 1
#define SHORT 2
#define TOO_LONG 3
#define TRUNCATED 4
#define REFUSED 5
#define GOING_ON (-1)

#define MAX_OUTPUT (1ll << 28)
#define ADLER_BASE 65521u

struct Output {
  unsigned char* bytes;  // 16-byte aligned
  unsigned size, position;
  unsigned recent;               // lane `recent_lane` holds the last byte written
  int recent_lane, lane;
  unsigned long long sum, weighted;  // this lane's part of S1 and S2

  __device__ __forceinline__ void count(unsigned byte, unsigned at) {
    sum += byte;
    weighted += (unsigned long long)byte * at;
  }
  __device__ __forceinline__ void put(unsigned at, unsigned byte) {
    bytes[at] = (unsigned char)byte;
    count(byte, at);
  }
};

// `length` times the last byte. The slot's 16-byte words in between, then the bytes at both ends.
__device__ __forceinline__ void fill(Output& out, unsigned length) {
  const unsigned lane = out.lane, from = out.position, end = from + length;
  unsigned byte = __shfl_sync(ALL, out.recent, out.recent_lane);
  if (length <= 32u) {
    if (lane < length) out.bytes[from + lane] = (unsigned char)byte;
  } else {
    unsigned body = (from + 15u) & ~15u, body_end = end & ~15u;
    unsigned word = byte * 0x01010101u, at = body + 16u * lane;
    if (at < body_end) *(uint4*)(out.bytes + at) = make_uint4(word, word, word, word);
    unsigned edge = lane < 16u ? from + lane : body_end + lane - 16u;
    if (edge < (lane < 16u ? body : end)) out.bytes[edge] = (unsigned char)byte;
  }
  if (byte && lane == 0) {  // nearly all fills are of zeros
    out.sum += (unsigned long long)byte * length;
    unsigned long long offsets = (unsigned long long)length * (length - 1u) / 2u;
    out.weighted += byte * ((unsigned long long)from * length + offsets);
  }
  out.recent = byte;
  out.position = end;
}

// `length` bytes from `distance` before, which is 2 or more; an overlapping copy repeats what it has written.
__device__ __forceinline__ void copy(Output& out, unsigned length, unsigned distance) {
  const unsigned lane = out.lane, from = out.position, end = from + length;
  unsigned byte = 0;
  __syncwarp();  // what other lanes wrote is the source
  if (distance < length && distance <= 32u) {
    // The period is held in registers; whole periods are written side by side.
    unsigned period = 32u - 32u % distance;
    byte = out.bytes[from - distance + lane % distance];
    if (lane < period)
#pragma unroll 1
      for (unsigned i = lane; i < length; i += period) out.put(from + i, byte);
    out.recent_lane = (int)((length - 1u) % period);
  } else if (length <= 32u) {
    if (lane < length) {
      byte = out.bytes[from - distance + lane];
      out.put(from + lane, byte);
    }
    out.recent_lane = (int)length - 1;
  } else if (distance < length + 3u) {
#pragma unroll 1
    for (unsigned i = 0; i < length; i += 32u) {  // 32 bytes depend on none of each other
      __syncwarp();
      if (i + lane < length) {
        byte = out.bytes[from - distance + i + lane];
        out.put(from + i + lane, byte);
      }
    }
    out.recent_lane = (int)((length - 1u) & 31u);
  } else {
    // Aligned words of the target in two rounds (258 bytes hold at most 64), each from two words of the
    // source; lanes 0-3 the bytes before them, lanes 4-7 the 1 to 4 bytes after them.
    unsigned body = (from + 3u) & ~3u, body_end = (end - 1u) & ~3u, shift = 8u * ((0u - distance) & 3u);
    unsigned edge = lane < 4u ? from + lane : body_end + lane - 4u;
    bool at_edge = lane < 8u && edge < (lane < 4u ? body : end);
    unsigned one = body + 4u * lane, two = one + 128u, low[2], high[2];
    const unsigned* source = (const unsigned*)(out.bytes + ((one - distance) & ~3u));
    if (at_edge) byte = out.bytes[edge - distance];
    if (one < body_end) {
      low[0] = source[0];
      high[0] = source[1];
    }
    if (two < body_end) {
      low[1] = source[32];
      high[1] = source[33];
    }
    if (at_edge) out.put(edge, byte);
#pragma unroll
    for (int i = 0; i < 2; i++) {
      unsigned at = i ? two : one;
      if (at >= body_end) break;
      unsigned word = __funnelshift_r(low[i], high[i], shift);
      unsigned sum = __dp4a(word, 0x01010101u, 0u);
      *(unsigned*)(out.bytes + at) = word;
      out.sum += sum;
      out.weighted += (unsigned long long)sum * at + __dp4a(word, 0x03020100u, 0u);
    }
    out.recent_lane = 4 + (int)(end - 1u - body_end);
  }
  out.recent = byte;
  out.position = end;
}

// The symbols of one block, up to its end.
__device__ __forceinline__ int inflate_codes(Input& in, Output& out, const Tables& tables, Code literal,
                                             Code distance) {
  const int lane = in.lane;
  while (!in.far_beyond()) {
    unsigned bits = in.peek();
    unsigned entry = tables.literals[bits & ((1u << LITERAL_BITS) - 1u)];
    if (DROP(entry) == 0u) {
      entry = long_entry(LITERALS, bits, literal, tables.literal_symbols, lane);
      if (entry == NO_CODE) return CORRUPT;
    }
    in.drop(DROP(entry));
    if (IS_LITERAL(entry)) {
      unsigned count = HOW_MANY(entry);
      if (count > out.size - out.position) return TOO_LONG;
      if (lane < (int)count) out.put(out.position + lane, entry >> (lane ? 16 : 8) & 255u);
      out.recent = entry >> 8u * count & 255u;
      out.position += count;
      continue;
    }
    if (IS_END(entry)) return GOING_ON;
    unsigned length = BASE(entry, bits), back = 1u;
    if (!IS_FILL(entry)) {
      bits = in.peek();
      entry = tables.distances[bits & ((1u << DISTANCE_BITS) - 1u)];
      if (DROP(entry) == 0u) {
        entry = long_entry(DISTANCES, bits, distance, tables.distance_symbols, lane);
        if (entry == NO_CODE) return CORRUPT;
      }
      in.drop(DROP(entry));
      back = BASE(entry, bits);
    }
    if (back > out.position) return CORRUPT;
    if (length > out.size - out.position) return TOO_LONG;
    if (back == 1u)
      fill(out, length);
    else
      copy(out, length, back);
  }
  return TRUNCATED;
}

// A stored block (RFC 1951, 3.2.4). `end` is the byte after the stream.
__device__ __forceinline__ int copy_stored(Input& in, Output& out, unsigned end) {
  const unsigned lane = out.lane;
  in.to_byte();
  unsigned both = in.take(16);
  unsigned length = both;
  both |= in.take(16) << 16;
  if ((both >> 16 ^ 0xffffu) != length) return CORRUPT;
  long long at = in.bit() >> 3;
  if (at > end) return TRUNCATED;
  unsigned from = (unsigned)at, there = min(length, end - from);
  if (there > out.size - out.position) return TOO_LONG;
  const unsigned char* bytes = (const unsigned char*)in.words + from;
  unsigned byte = 0;
  for (unsigned i = lane; i < there; i += 32u) {
    byte = __ldg(bytes + i);
    out.put(out.position + i, byte);
  }
  if (there) {
    out.recent = byte;
    out.recent_lane = (int)((there - 1u) & 31u);
  }
  out.position += there;
  if (there < length) return TRUNCATED;
  in.seek(from + length);
  return GOING_ON;
}

__device__ __forceinline__ unsigned long long over_lanes(unsigned long long value) {
#pragma unroll 1
  for (int step = 16; step; step /= 2) value += __shfl_xor_sync(ALL, value, step);
  return value;
}

// The trailer (RFC 1950, 2.2), which is big-endian, against what the lanes have summed.
__device__ __forceinline__ int check_adler(Input& in, Output& out) {
  in.to_byte();
  unsigned stored = __byte_perm(in.peek(), 0u, 0x0123u);
  in.drop(32);
  unsigned sum = (unsigned)(over_lanes(out.sum) % ADLER_BASE);
  unsigned weighted = (unsigned)(over_lanes(out.weighted) % ADLER_BASE);
  unsigned n = out.position % ADLER_BASE;
  unsigned a = (1u + sum) % ADLER_BASE;
  unsigned b = (unsigned)((n + (unsigned long long)n * sum + ADLER_BASE - weighted) % ADLER_BASE);
  if ((b << 16 | a) != stored) return CORRUPT;
  return out.position == out.size ? OK : SHORT;
}

__device__ __forceinline__ int inflate_stream(Input& in, Output& out, Tables& tables, unsigned end) {
  unsigned header = in.take(16);  // CMF, FLG
  if ((header & 15u) != 8u || (header >> 4 & 15u) > 7u || header & 0x2000u) return CORRUPT;
  if (((header & 255u) << 8 | header >> 8) % 31u) return CORRUPT;
  for (bool last = false; !last;) {
    if (in.far_beyond()) return TRUNCATED;
    last = in.take(1);
    unsigned type = in.take(2);
    int status = CORRUPT;
    if (type == 0u) {
      status = copy_stored(in, out, end);
    } else if (type < 3u) {
      Code literal, distance;
      if (read_codes(in, tables, type == 1u, &literal, &distance))
        status = inflate_codes(in, out, tables, literal, distance);
    }
    if (status != GOING_ON) return status;
  }
  return check_adler(in, out);
}

// One block of one warp per stream.
//   slab      (slab_bytes,) uint8, 128-byte aligned; slab_bytes a multiple of 4
//   offsets   (n,) int64: first byte of each stream in the slab, any alignment
//   lengths   (n,) int32: bytes of each stream
//   output    (output_bytes,) uint8, 16-byte aligned
//   targets   (n,) int64: first byte of each slot, a multiple of 16; slots do not overlap
//   sizes     (n,) int32: bytes of each slot
//   statuses  (n,) int32, written
extern "C" __global__ void __launch_bounds__(32) inflate(
    const unsigned char* __restrict__ slab, const long long slab_bytes, const long long* __restrict__ offsets,
    const int* __restrict__ lengths, unsigned char* output, const long long output_bytes,
    const long long* __restrict__ targets, const int* __restrict__ sizes, int* statuses) {
  __shared__ Tables tables;
  const int lane = (int)threadIdx.x;
  const long long offset = offsets[blockIdx.x], target = targets[blockIdx.x];
  const long long length = lengths[blockIdx.x], size = sizes[blockIdx.x];
  // Differences of what is not negative: sums could overflow.
  if (offset < 0 || length < 0 || length > slab_bytes - offset || target < 0 || target & 15 || size < 0 ||
      size > MAX_OUTPUT || size > output_bytes - target) {
    if (lane == 0) statuses[blockIdx.x] = REFUSED;
    return;
  }
  const unsigned begin = (unsigned)(offset & 127), end = begin + (unsigned)length;
  Input in;
  in.words = (const unsigned*)(slab + (offset - begin));
  in.first = begin >> 2;
  in.last = (end + 3u) >> 2;
  in.lane = lane;
  in.seek(begin);
  Output out;
  out.bytes = output + target;
  out.size = (unsigned)size;
  out.position = 0;
  out.recent = 0;
  out.recent_lane = 0;
  out.lane = lane;
  out.sum = out.weighted = 0;
  int status = inflate_stream(in, out, tables, end);
  if (in.bit() > 8ll * end) status = TRUNCATED;
  if (lane == 0) statuses[blockIdx.x] = status;
}

// Makes the segments of streams contiguous: one block per segment.
//   slab     as above; no range that is written overlaps another one
//   sources  (n,) int64: first byte of each segment
//   targets  (n,) int64: where it goes, any alignment
//   lengths  (n,) int32
// A segment whose ranges do not lie inside the slab is left out; its stream is then corrupt or truncated.
extern "C" __global__ void __launch_bounds__(GATHER_THREADS) gather(
    unsigned char* slab, const long long slab_bytes, const long long* __restrict__ sources,
    const long long* __restrict__ targets, const int* __restrict__ lengths) {
  const long long source = sources[blockIdx.x], target = targets[blockIdx.x], length = lengths[blockIdx.x];
  if (source < 0 || target < 0 || length < 0 || length > slab_bytes - source || length > slab_bytes - target)
    return;
  for (long long i = threadIdx.x; i < length; i += GATHER_THREADS) slab[target + i] = slab[source + i];
}
