// Runs the threads of a block as fibers on one OS thread, in a chosen order, one block after the other.
//
// A fiber runs until it meets a barrier or a warp primitive, exits, or fails. The order in which fibers run
// between two meetings is the schedule: forward, reverse, or random. What differs between schedules is a
// race. Blocks also run in that order. x86-64 only: the stack switch is assembly.
//
// Under ASan the sanitizer is told of every stack switch. Under TSan every CUDA thread is a TSan fiber,
// switches carry no happens-before, and only what orders memory on a device does: the launch, __syncthreads,
// __syncwarp.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>
#include <sys/mman.h>

#include "device.h"  // last: its macros are not for the standard library

#if !defined(__x86_64__)
#error "the host executor switches stacks with x86-64 assembly"
#endif

#ifdef HOST_CUDA_TSAN
extern "C" {
void* __tsan_create_fiber(unsigned);
void __tsan_destroy_fiber(void*);
void __tsan_switch_to_fiber(void*, unsigned);
void* __tsan_get_current_fiber();
void __tsan_acquire(void*);
void __tsan_release(void*);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
}
static void acquire(void* address) { __tsan_acquire(address); }
static void release(void* address) { __tsan_release(address); }
// The runtime's own malloc and memcpy are intercepted; they are not the kernel's.
struct Unwatched {
  Unwatched() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unwatched() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
};
constexpr bool WATCHED = true;
#else
static void acquire(void*) {}
static void release(void*) {}
struct Unwatched {
  ~Unwatched() {}
};
constexpr bool WATCHED = false;
#endif
#ifdef HOST_CUDA_ASAN
extern "C" void __sanitizer_start_switch_fiber(void**, const void*, size_t);
extern "C" void __sanitizer_finish_switch_fiber(void*, const void**, size_t*);
extern "C" void __asan_unpoison_memory_region(const volatile void*, size_t);
#endif

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

// Saves the callee-saved registers on the old stack and takes them from the new one (System V ABI).
extern "C" void host_cuda_switch(void** save, void* to);
asm(".text\n.globl host_cuda_switch\n.hidden host_cuda_switch\n.type host_cuda_switch,@function\n"
    "host_cuda_switch:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
    ".size host_cuda_switch,.-host_cuda_switch\n");

namespace host_cuda {
namespace {

constexpr size_t STACK = 256 << 10, GUARD = 4096;
enum Schedule { FORWARD, REVERSE, RANDOM };
enum State { NEW, READY, AT_BARRIER, AT_MEETING, DONE };

struct Fiber {
  void* stack_pointer = nullptr;
  char* stack = nullptr;
  void* fake_stack = nullptr;  // ASan's
  void* watched = nullptr;     // TSan's
  int thread = -1;
};

struct Thread {
  State state = NEW;
  Fiber* fiber = nullptr;
  int line = 0;
};

// Two meetings suffice: no lane can be two meetings ahead of a lane that has not left the first.
struct Warp {
  unsigned exited = 0, arrived = 0, generation = 0;
  Operation operation = SYNCWARP;
  int line = 0;
  Votes votes[2] = {};
  char order[2];  // addresses that TSan's happens-before hangs on
};

struct Executor {
  void (*kernel)(void**) = nullptr;
  void** arguments = nullptr;
  int threads = 0, at_barrier = 0, barrier_line = 0, exited = 0, cursor = 0, parity = 0;
  unsigned barrier_generation = 0;
  Schedule schedule = FORWARD;
  std::minstd_rand random;
  std::vector<Thread> thread;
  std::vector<Warp> warp;
  std::vector<uint3> position;  // threadIdx of each thread
  std::vector<int> order;
  std::vector<Fiber*> made, spare, fixed;
  std::map<int, std::unique_ptr<char[]>> shared;
  Fiber main;
  Fiber* current = nullptr;
  const void* main_stack = nullptr;  // ASan's
  size_t main_stack_size = 0;
  std::string error;
  char start_order, end_order, barrier_order[2];
};

Executor* X;

void set_thread(int index) { threadIdx = X->position[index]; }

void switch_to(Fiber* from, Fiber* to) {
#ifdef HOST_CUDA_TSAN
  __tsan_switch_to_fiber(to->watched, 1);  // 1: the switch itself orders nothing
#endif
#ifdef HOST_CUDA_ASAN
  bool to_main = to == &X->main;
  __sanitizer_start_switch_fiber(&from->fake_stack, to_main ? X->main_stack : to->stack,
                                 to_main ? X->main_stack_size : STACK);
#endif
  X->current = to;
  host_cuda_switch(&from->stack_pointer, to->stack_pointer);
#ifdef HOST_CUDA_ASAN
  __sanitizer_finish_switch_fiber(from->fake_stack, nullptr, nullptr);
#endif
}

void finish_meeting(int w) {
  Warp& warp = X->warp[w];
  if (!warp.arrived || (warp.arrived | warp.exited) != ~0u) return;
  warp.votes[warp.generation & 1].present = warp.arrived;
  warp.arrived = 0;
  warp.generation++;
  int last = std::min(X->threads, w * 32 + 32);
  for (int i = w * 32; i < last; i++)
    if (X->thread[i].state == AT_MEETING) X->thread[i].state = READY;
}

void finish_barrier() {
  if (!X->at_barrier || X->at_barrier + X->exited != X->threads) return;
  X->at_barrier = 0;
  X->barrier_generation++;
  for (Thread& thread : X->thread)
    if (thread.state == AT_BARRIER) thread.state = READY;
}

void run_threads(Fiber* self);
void entry() { run_threads(X->current); }

Fiber* make_fiber() {
  Fiber* fiber = new Fiber;
  void* memory = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  fiber->stack = static_cast<char*>(memory);
  mprotect(fiber->stack, GUARD, PROT_NONE);
  // Staggered, or the tops of all stacks would compete for the same cache sets.
  size_t stagger = X->made.size() * 960 % (16 << 10) & ~size_t(63);
  void** top = reinterpret_cast<void**>(fiber->stack + STACK - stagger) - 2;
  *top = reinterpret_cast<void*>(&entry);
  fiber->stack_pointer = top - 6;
  X->made.push_back(fiber);
#ifdef HOST_CUDA_TSAN
  fiber->watched = __tsan_create_fiber(0);
#endif
  return fiber;
}

// Under TSan a CUDA thread keeps its fiber, and alternate blocks have different ones, so that neither two
// threads nor two consecutive blocks look ordered because they shared a fiber.
Fiber* fiber_for(int index) {
  if (WATCHED) {
    X->fixed.resize(2 * X->threads);
    Fiber*& fiber = X->fixed[X->parity * X->threads + index];
    if (!fiber) fiber = make_fiber();
    return fiber;
  }
  if (X->spare.empty()) return make_fiber();
  Fiber* fiber = X->spare.back();
  X->spare.pop_back();
  return fiber;
}

// The next fiber of this round that can run, or the main one at the end of the round. Each thread has one
// turn in a round.
Fiber* next_fiber() {
  while (X->cursor < X->threads) {
    int index = X->order[X->cursor++];
    Thread& thread = X->thread[index];
    if (thread.state == NEW) {
      Unwatched unwatched;
      thread.fiber = fiber_for(index);
      thread.fiber->thread = index;
      thread.state = READY;
    }
    if (thread.state == READY) return thread.fiber;
  }
  return &X->main;
}

void run_threads(Fiber* self) {
#ifdef HOST_CUDA_ASAN
  if (X->main_stack)
    __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
  else  // the first fiber of a launch is entered from the main stack
    __sanitizer_finish_switch_fiber(nullptr, &X->main_stack, &X->main_stack_size);
#endif
  for (;;) {
    int index = self->thread;
    acquire(&X->start_order);
    set_thread(index);
    X->kernel(X->arguments);
    release(&X->end_order);
    {
      Unwatched unwatched;
      X->thread[index].state = DONE;
      X->thread[index].fiber = nullptr;
      X->exited++;
      X->warp[index / 32].exited |= 1u << (index % 32);
      finish_meeting(index / 32);
      finish_barrier();
      self->thread = -1;
      if (!WATCHED) X->spare.push_back(self);
    }
    Fiber* next = next_fiber();
    if (next != self) switch_to(self, next);  // else the next thread begins on this stack
  }
}

// Also for the last thread to arrive, which could go on: the schedule says who is first after a meeting.
void park(State state, int line) {
  int index = X->current->thread;
  X->thread[index].state = state;
  X->thread[index].line = line;
  switch_to(X->thread[index].fiber, next_fiber());
  set_thread(index);
}

void describe_deadlock() {
  int waiting = 0, first = -1;
  for (int i = 0; i < X->threads; i++) {
    if (X->thread[i].state == DONE) continue;
    waiting += X->thread[i].state == AT_BARRIER;
    if (first < 0) first = i;
  }
  char text[300];
  snprintf(text, sizeof text,
           "deadlock in block %u,%u,%u: %d of %d threads wait at __syncthreads, %d have exited, "
           "thread %d waits at line %d",
           blockIdx.x, blockIdx.y, blockIdx.z, waiting, X->threads, X->exited, first, X->thread[first].line);
  X->error = text;
}

bool run_block() {
  if (WATCHED)  // leaked: giving the memory to the next block would need an order between blocks
    for (auto& entry : X->shared) entry.second.release();
  X->shared.clear();
  X->parity ^= 1;
  X->at_barrier = X->exited = 0;
  X->thread.assign(X->threads, {});
  X->warp.assign((X->threads + 31) / 32, {});
  if (X->threads % 32) X->warp.back().exited = ~0u << (X->threads % 32);
  for (int i = 0; i < X->threads; i++) X->order[i] = X->schedule == REVERSE ? X->threads - 1 - i : i;
  release(&X->start_order);
  while (X->exited < X->threads) {
    if (X->schedule == RANDOM) std::shuffle(X->order.begin(), X->order.end(), X->random);
    X->cursor = 0;
    Fiber* first = next_fiber();
    if (first == &X->main) {
      describe_deadlock();
      return false;
    }
    switch_to(&X->main, first);
    if (!X->error.empty()) return false;
  }
  return true;
}

}  // namespace

void fail(const char* message, int line) {
  char text[400];
  snprintf(text, sizeof text, "%s (line %d, block %u,%u,%u, thread %u,%u,%u)", message, line, blockIdx.x,
           blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z);
  X->error = text;
  switch_to(X->current, &X->main);
  __builtin_unreachable();
}

unsigned lane() { return unsigned(X->current->thread) % 32; }

void barrier(int line) {
  if (X->at_barrier && X->barrier_line != line) {
    std::string text = "barrier divergence: other threads wait at __syncthreads in line ";
    fail((text + std::to_string(X->barrier_line)).c_str(), line);
  }
  X->barrier_line = line;
  char* order = &X->barrier_order[X->barrier_generation & 1];
  release(order);
  Thread& thread = X->thread[X->current->thread];
  thread.state = AT_BARRIER;
  X->at_barrier++;
  finish_barrier();
  park(thread.state, line);
  acquire(order);
}

const Votes& meet(unsigned mask, uint64_t value, Operation operation, int line) {
  int index = X->current->thread, lane = index % 32;
  Warp& warp = X->warp[index / 32];
  if (mask != ~0u) fail("warp primitive without a full mask", line);
  if (warp.arrived && (warp.operation != operation || warp.line != line)) {
    std::string text = "warp divergence: other lanes wait at the warp primitive in line ";
    fail((text + std::to_string(warp.line)).c_str(), line);
  }
  unsigned turn = warp.generation & 1;
  warp.operation = operation;
  warp.line = line;
  warp.arrived |= 1u << lane;
  warp.votes[turn].value[lane] = value;
  // Shuffles and votes carry values, not memory: only __syncwarp orders it.
  if (operation == SYNCWARP) release(&warp.order[turn]);
  Thread& thread = X->thread[index];
  thread.state = AT_MEETING;
  finish_meeting(index / 32);
  park(thread.state, line);
  if (operation == SYNCWARP) acquire(&warp.order[turn]);
  return warp.votes[turn];
}

void* shared(int id, size_t bytes) {
  Unwatched unwatched;
  auto& memory = X->shared[id];
  if (!memory) {
    memory.reset(new char[bytes]);
    memset(memory.get(), 0xCD, bytes);  // not zero: on a device it is whatever was there
  }
  return memory.get();
}

}  // namespace host_cuda

using namespace host_cuda;

static std::string last_error;

#define EXPORTED extern "C" __attribute__((visibility("default")))

EXPORTED const char* host_cuda_error() { return last_error.c_str(); }

// Returns 0, or 1 with the reason in host_cuda_error(). Not reentrant.
EXPORTED int host_cuda_launch(void (*kernel)(void**), void** arguments, const unsigned* grid,
                              const unsigned* block, int schedule, unsigned seed) {
  Unwatched unwatched_launch;
  Executor executor;
  X = &executor;
  executor.kernel = kernel;
  executor.arguments = arguments;
  executor.schedule = Schedule(schedule);
  executor.random.seed(seed + 1);
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  executor.threads = int(block[0] * block[1] * block[2]);
  executor.order.resize(executor.threads);
  for (unsigned z = 0; z < block[2]; z++)
    for (unsigned y = 0; y < block[1]; y++)
      for (unsigned x = 0; x < block[0]; x++) executor.position.push_back({x, y, z});
#ifdef HOST_CUDA_TSAN
  executor.main.watched = __tsan_get_current_fiber();
#endif
  uint64_t blocks = uint64_t(grid[0]) * grid[1] * grid[2];
  std::vector<uint64_t> turn;
  for (uint64_t i = 0; i < blocks; i++) turn.push_back(schedule == REVERSE ? blocks - 1 - i : i);
  if (schedule == RANDOM) std::shuffle(turn.begin(), turn.end(), executor.random);
  for (uint64_t i : turn) {
    uint64_t row = i / grid[0];
    blockIdx = {unsigned(i % grid[0]), unsigned(row % grid[1]), unsigned(row / grid[1])};
    if (!run_block()) break;
  }
  acquire(&executor.end_order);
  if (WATCHED)
    for (auto& entry : executor.shared) entry.second.release();
  for (Fiber* fiber : executor.made) {
#ifdef HOST_CUDA_TSAN
    __tsan_destroy_fiber(fiber->watched);
#endif
#ifdef HOST_CUDA_ASAN
    // Frames that were never left keep their red zones; the next mapping here is somebody else's.
    __asan_unpoison_memory_region(fiber->stack, STACK);
#endif
    munmap(fiber->stack, STACK);
    delete fiber;
  }
  X = nullptr;
  last_error = executor.error;
  return last_error.empty() ? 0 : 1;
}
