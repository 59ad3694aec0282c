# Part of _core.pyx: memory that the core works in, and blocks of it kept for the next call.

# Large blocks that were given back, the oldest first. A training step needs the same packed weights, tape and workspace as the
# one before; taken from the system anew, every page of them is a fault and is cleared: 7 % of a step at N=1, T=100, I=H=1024
# (LSTM, one thread, Zen 4), and those of y and the gradients as much again. From 64 KB on: the C library gives blocks of 128 KB
# back to the system, as it happens, and a step at N=16, T=50, I=H=64, whose y and dx are 205 KB, then took 1.94 ms instead of 1.54.
# 256 MB hold what a step at N=64, T=50, I=H=1024 gives back; the C library keeps 64 MB of its own for the same reason. Under the
# GIL.
cdef struct Block:
    void* memory
    int64_t capacity

cdef enum:
    MOST_SPARE = 64
cdef Block[MOST_SPARE] spare
cdef int spares = 0
cdef int64_t spare_bytes = 0
cdef int64_t SPARE_FROM = 64 << 10
cdef int64_t SPARE_LIMIT = 256 << 20


cdef Block drop_spare(int index) noexcept:
    """Takes a block out of the list."""
    global spares, spare_bytes
    cdef Block block = spare[index]
    cdef int i
    spares -= 1
    spare_bytes -= block.capacity
    for i in range(index, spares):
        spare[i] = spare[i + 1]
    return block


cdef Block find_spare(int64_t nbytes) noexcept:
    """The smallest block that is large enough and not a quarter larger; memory NULL if there is none."""
    cdef Block none
    cdef int i, best = -1
    none.memory, none.capacity = NULL, 0
    for i in range(spares):
        if nbytes <= spare[i].capacity <= nbytes + nbytes // 4:
            if best < 0 or spare[i].capacity < spare[best].capacity:
                best = i
    return none if best < 0 else drop_spare(best)


cdef void give_back(Block block) noexcept:
    global spares, spare_bytes
    if block.capacity < SPARE_FROM or block.capacity > SPARE_LIMIT:
        free(block.memory)
        return
    while spares == MOST_SPARE or spare_bytes + block.capacity > SPARE_LIMIT:
        free(drop_spare(0).memory)
    spare[spares] = block
    spares += 1
    spare_bytes += block.capacity


cdef class Buffer:
    """A block of memory on a 64-byte boundary; a large one on huge pages where the system has them.

    16 MB of weights are 4096 pages of 4 KB, more than the 3072 that Zen 4's second-level TLB holds, and they are walked
    through at every step.
    """

    cdef void* memory
    cdef readonly int64_t nbytes
    cdef int64_t capacity
    cdef uint32_t save     # of a tape: what it holds
    cdef uint32_t segment  # and how far apart its checkpoints are, 0 as the plan chooses

    def __cinit__(self, int64_t nbytes):
        cdef Block block
        self.nbytes = nbytes
        self.capacity = nbytes if nbytes > 0 else LINE
        self.save = FASTRNN_SAVE_ALL
        self.segment = 0
        if nbytes >= SPARE_FROM:
            block = find_spare(nbytes)
            if block.memory != NULL:
                self.memory, self.capacity = block.memory, block.capacity
                return
        cdef size_t alignment = HUGE_PAGE if nbytes >= 2 * HUGE_PAGE else LINE
        if posix_memalign(&self.memory, alignment, <size_t>self.capacity) != 0:
            self.memory = NULL
            raise MemoryError(f"fastrnn: {nbytes} bytes of memory are not to be had")
        if alignment == HUGE_PAGE:
            fastrnn_huge_pages(self.memory, <size_t>nbytes)

    def __dealloc__(self):
        cdef Block block
        if self.memory != NULL:
            block.memory, block.capacity = self.memory, self.capacity
            give_back(block)
