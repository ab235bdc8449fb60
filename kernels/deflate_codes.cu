// The bits of a deflate stream and the tables of its codes (RFC 1951). Compiled in front of `inflate.cu`,
// which holds the contract; this file has no kernel of its own.
//
// A first-level table of LITERAL_BITS or DISTANCE_BITS gives a code's meaning in one look-up. Longer codes,
// under 1 % of the symbols, are found by comparison: lane L knows where the codes of L bits end, and one
// ballot tells the length. So the size of the tables does not depend on the stream:
//   4 KiB + 1 KiB of entries, 640 bytes of symbols by rank, 320 of code lengths
// Bounds: an index is masked to its table's size; a rank is below the number of coded symbols by
// construction; code lengths are counted against 286 + 30 before they are stored.

#define ALL 0xffffffffu
#define MAX_BITS 15

// A table entry of 32 bits; what the hot loop asks first costs it one test.
//   0-4    bits to drop: the code, and the extra bits of a length or distance (at most 15 + 13);
//          0: no code of the table's index, it is longer or not in use
//   31     literals                                lengths and distances
//          5-6    how many: 1 or 2                 5      end of block
//                                                  6      a length with distance 1
//          8-15   the first                        8-11   bits of the code alone
//          16-23  the second                       12-15  number of extra bits
//                                                  16-30  base
#define DROP(entry) ((entry) & 31u)
#define LITERAL 0x80000020u
#define TWO_LITERALS 0x80000040u
#define IS_LITERAL(entry) ((int)(entry) < 0)
#define HOW_MANY(entry) ((entry) >> 5 & 3u)
#define END_OF_BLOCK 0x20u
#define IS_END(entry) ((entry) & END_OF_BLOCK)
#define FILL 0x40u
#define IS_FILL(entry) ((entry) & FILL)
#define DISTANCE_1(entry) ((entry) >> 12 == 0x10u)
#define BASE(entry, bits) \
  (((entry) >> 16) + ((bits) >> ((entry) >> 8 & 15u) & ((1u << ((entry) >> 12 & 15u)) - 1u)))
#define NO_CODE 0u

#define LITERALS 0
#define DISTANCES 1
#define CODE_LENGTHS 2

// A canonical code (RFC 1951, 3.2.2), spread over the lanes: lane L holds what concerns codes of L bits.
//   limit  the first 15-bit number, most significant bit first, that is beyond all codes of L bits
//   base   first code of L bits, less the rank of its symbol
struct Code {
  unsigned limit;
  int base;
};

struct Tables {
  unsigned literals[1 << LITERAL_BITS];
  unsigned distances[1 << DISTANCE_BITS];  // also the code of the code lengths
  unsigned short literal_symbols[288];     // by rank: by length, then by value
  unsigned short distance_symbols[32];
  unsigned char lengths[320];
};

// The bits of a stream, least significant first. All lanes hold the same, but for the windows.
struct Input {
  const unsigned* words;  // the slab from the 128-byte line on in which the stream begins
  unsigned first, last;   // the stream's words
  unsigned window;        // word `lane` of the 32 words around `next`
  unsigned following;     // word `lane` of the 32 words after them, loaded long before they are needed
  unsigned low, high, ahead, next;
  unsigned used;  // bits of `low` that are consumed; below 32
  int lane;

  __device__ __forceinline__ unsigned load(unsigned word) const {
    return word >= first && word < last ? __ldg(words + word) : 0u;
  }
  __device__ __forceinline__ unsigned fetch() {
    unsigned word = __shfl_sync(ALL, window, next & 31u);
    if ((++next & 31u) == 0) {
      window = following;
      following = load(next + 32u + lane);
    }
    return word;
  }
  __device__ __forceinline__ void seek(unsigned byte) {
    next = byte >> 2;
    window = load((next & ~31u) + lane);
    following = load((next & ~31u) + 32u + lane);
    low = fetch();
    high = fetch();
    ahead = fetch();
    used = 8u * (byte & 3u);
  }
  __device__ __forceinline__ unsigned peek() const { return __funnelshift_r(low, high, used); }
  __device__ __forceinline__ void drop(unsigned bits) {  // at most 32
    used += bits;
    if (used >= 32u) {
      used -= 32u;
      low = high;
      high = ahead;
      ahead = fetch();
    }
  }
  __device__ __forceinline__ unsigned take(unsigned bits) {  // at most 31
    unsigned value = peek() & ((1u << bits) - 1u);
    drop(bits);
    return value;
  }
  __device__ __forceinline__ void to_byte() { drop((8u - used) & 7u); }
  __device__ __forceinline__ long long bit() const { return 32ll * ((long long)next - 3) + used; }
  __device__ __forceinline__ bool far_beyond() const { return next > last + 8u; }
};

__device__ __forceinline__ unsigned literal_entry(unsigned symbol, unsigned bits) {
  if (symbol < 256u) return LITERAL | symbol << 8 | bits;
  if (symbol == 256u) return END_OF_BLOCK | bits;
  if (symbol > 285u) return NO_CODE;
  unsigned s = symbol - 257u;  // RFC 1951, 3.2.5
  unsigned extra = s < 8u || s == 28u ? 0u : (s >> 2) - 1u;
  unsigned base = s < 8u ? 3u + s : s == 28u ? 258u : 3u + ((4u + (s & 3u)) << extra);
  return base << 16 | extra << 12 | bits << 8 | (bits + extra);
}

__device__ __forceinline__ unsigned distance_entry(unsigned symbol, unsigned bits) {
  if (symbol > 29u) return NO_CODE;
  unsigned extra = symbol < 2u ? 0u : (symbol >> 1) - 1u;  // RFC 1951, 3.2.5
  unsigned base = symbol < 2u ? 1u + symbol : 1u + ((2u + (symbol & 1u)) << extra);
  return base << 16 | extra << 12 | bits << 8 | (bits + extra);
}

__device__ __forceinline__ unsigned make_entry(int alphabet, unsigned symbol, unsigned bits) {
  if (alphabet == LITERALS) return literal_entry(symbol, bits);
  if (alphabet == DISTANCES) return distance_entry(symbol, bits);
  return LITERAL | symbol << 8 | bits;
}

// The entry of a code that the table does not hold: lanes 1 to 15 each ask whether it has their length.
// NO_CODE where no lane says yes, and for the symbols 286, 287, 30 and 31.
__device__ __forceinline__ unsigned long_entry(int alphabet, unsigned bits, Code code,
                                               const unsigned short* symbols, int lane) {
  unsigned number = __brev(bits) >> 17;
  unsigned longer = __ballot_sync(ALL, lane >= 1 && lane <= MAX_BITS && number < code.limit);
  int length = longer ? __ffs(longer) - 1 : 1;
  int base = __shfl_sync(ALL, code.base, length);
  if (!longer) return NO_CODE;
  return make_entry(alphabet, symbols[(int)(number >> (MAX_BITS - length)) - base], (unsigned)length);
}

// Ranks the symbols of `count` code lengths and fills the first-level table of 2^table_bits entries.
// False for an over-subscribed code, and for an incomplete one unless it has one symbol of 1 bit or none.
__device__ __forceinline__ bool build(int alphabet, const unsigned char* lengths, int count, int table_bits,
                                      unsigned* table, unsigned short* symbols, int lane, Code* code) {
  __syncwarp();
  bool owner = lane >= 1 && lane <= MAX_BITS;  // lane L looks after codes of L bits
  int mine = 0;
  for (int i = 0; i < count; i++) mine += owner && lengths[i] == lane;
  unsigned limit = owner ? (unsigned)mine << (MAX_BITS - lane) : 0u;
  int rank = mine;
#pragma unroll 1
  for (int step = 1; step < 16; step *= 2) {  // inclusive sums over the shorter lengths
    unsigned other_limit = __shfl_up_sync(ALL, limit, step);
    int other_rank = __shfl_up_sync(ALL, rank, step);
    if (lane >= step) {
      limit += other_limit;
      rank += other_rank;
    }
  }
  unsigned total = __shfl_sync(ALL, limit, MAX_BITS);
  int coded = __shfl_sync(ALL, rank, MAX_BITS);
  unsigned in_use = __ballot_sync(ALL, mine > 0);
  if (total > 1u << MAX_BITS) return false;
  if (total < 1u << MAX_BITS && (alphabet == CODE_LENGTHS || in_use > 2u)) return false;
  rank -= mine;  // of the first symbol of this length
  code->limit = limit;
  code->base = owner ? (int)(limit >> (MAX_BITS - lane)) - mine - rank : 0;
  for (int i = 0, next = rank; i < count; i++)
    if (owner && lengths[i] == lane) symbols[next++] = (unsigned short)i;
#pragma unroll 1
  for (int i = lane; i < 1 << table_bits; i += 32) table[i] = NO_CODE;
  __syncwarp();
  // Codes of few bits fill 32 entries or more: all lanes on one symbol. Then a symbol for each lane.
  int done = 0;
  for (; done < coded; done++) {
    unsigned symbol = symbols[done], bits = lengths[symbol];
    if ((int)bits > table_bits - 5) break;
    unsigned start = __brev((unsigned)(done + __shfl_sync(ALL, code->base, bits)) << (32u - bits));
    unsigned entry = make_entry(alphabet, symbol, bits);
#pragma unroll 1
    for (unsigned i = lane; i < 1u << (table_bits - bits); i += 32u) table[start + (i << bits)] = entry;
  }
  for (int first = done; first < coded; first += 32) {
    int at = first + lane;
    unsigned symbol = at < coded ? symbols[at] : 0u, bits = at < coded ? lengths[symbol] : 1u;
    int base = __shfl_sync(ALL, code->base, bits);
    if (at >= coded || (int)bits > table_bits) continue;
    unsigned start = __brev((unsigned)(at + base) << (32u - bits));
    unsigned entry = make_entry(alphabet, symbol, bits);
#pragma unroll 1
    for (unsigned i = start; i < 1u << table_bits; i += 1u << bits) table[i] = entry;
  }
  __syncwarp();
  return true;
}

// Where two literals fit into one index, the entry gives both: OpenCV's files have them in pairs. Where a
// length and the code of distance 1 do, it gives the fill: three of four in files of Pillow and OpenCV. An
// entry's second literal stands at a lower index, or its own, so from the top down it is not yet a pair when
// read.
__device__ __forceinline__ void combine_entries(Tables& tables, int lane) {
#pragma unroll 1
  for (int chunk = (1 << LITERAL_BITS) - 32; chunk >= 0; chunk -= 32) {
    unsigned index = (unsigned)(chunk + lane), one = tables.literals[index], combined = one;
    unsigned rest = index >> DROP(one);
    if (IS_LITERAL(one)) {
      unsigned two = tables.literals[rest], bits = DROP(one) + DROP(two);
      if (IS_LITERAL(two) && bits <= LITERAL_BITS)
        combined = TWO_LITERALS | (two & 0xff00u) << 8 | (one & 0xff00u) | bits;
    } else if (one != NO_CODE && !IS_END(one) && DROP(one) < LITERAL_BITS) {
      unsigned two = tables.distances[rest & ((1u << DISTANCE_BITS) - 1u)], bits = DROP(one) + DROP(two);
      if (DISTANCE_1(two) && bits <= LITERAL_BITS) combined = BASE(one, index) << 16 | FILL | bits;
    }
    __syncwarp();
    tables.literals[index] = combined;
  }
  __syncwarp();
}

// The code lengths of a dynamic block (RFC 1951, 3.2.7), or of a fixed one, and the tables of both codes.
// False where they are against the RFC.
__device__ __forceinline__ bool read_codes(Input& in, Tables& tables, bool fixed, Code* literal,
                                           Code* distance) {
  const int lane = in.lane;
  int literals = 288, distances = 32;
  if (fixed) {
    __syncwarp();
#pragma unroll 1
    for (int i = lane; i < 320; i += 32)
      tables.lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : i < 288 ? 8 : 5;
  } else {
    literals = 257 + (int)in.take(5);
    distances = 1 + (int)in.take(5);
    int stored = 4 + (int)in.take(4);
    if (literals > 286 || distances > 30) return false;
    unsigned mine = 0;  // lane s holds the code length of symbol s
    for (int i = 0; i < stored; i++) {
      // The order of the 19 symbols: 16 17 18 0 8 7 9 6 10 5 11 4 12 3 13 2 14 1 15.
      int symbol = i < 3 ? 16 + i : i == 3 ? 0 : i & 1 ? 8 - (i - 3) / 2 : 8 + (i - 4) / 2;
      unsigned bits = in.take(3);
      if (lane == symbol) mine = bits;
    }
    __syncwarp();
    tables.lengths[lane] = (unsigned char)mine;
    Code unused;
    if (!build(CODE_LENGTHS, tables.lengths, 19, 7, tables.distances, tables.distance_symbols, lane, &unused))
      return false;
    int have = 0, last = 0;
    while (have < literals + distances) {
      unsigned entry = tables.distances[in.peek() & 127u];
      if (entry == NO_CODE) return false;
      in.drop(DROP(entry));
      int symbol = (int)(entry >> 8 & 255u), repeat = 1;
      if (symbol < 16) {
        last = symbol;
      } else if (symbol == 16) {
        if (have == 0) return false;
        repeat = 3 + (int)in.take(2);
      } else {
        last = 0;
        repeat = symbol == 17 ? 3 + (int)in.take(3) : 11 + (int)in.take(7);
      }
      if (have + repeat > literals + distances) return false;
#pragma unroll 1
      for (int i = lane; i < repeat; i += 32) tables.lengths[have + i] = (unsigned char)last;
      have += repeat;
    }
    __syncwarp();
    if (tables.lengths[256] == 0) return false;  // no end of block
  }
  if (!build(LITERALS, tables.lengths, literals, LITERAL_BITS, tables.literals, tables.literal_symbols, lane,
             literal))
    return false;
  if (!build(DISTANCES, tables.lengths + literals, distances, DISTANCE_BITS, tables.distances,
             tables.distance_symbols, lane, distance))
    return false;
  combine_entries(tables, lane);
  return true;
}
