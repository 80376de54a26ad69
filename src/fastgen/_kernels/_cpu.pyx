"""Which x86-64 micro-architecture level this processor and operating system support."""

cdef extern from *:
    """
    static int fastgen_isa_level(void) {
    #if defined(__x86_64__) || defined(__amd64__)
        __builtin_cpu_init();
        if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
              __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2")))
            return 1;
        if (!(__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512cd") &&
              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
              __builtin_cpu_supports("avx512vl")))
            return 3;
        return 4;
    #else
        return 0;
    #endif
    }
    """
    int fastgen_isa_level() noexcept nogil


def isa_level() -> int:
    """0: not x86-64; 1: baseline; 3: AVX2 and FMA; 4: AVX-512 F, CD, DQ, BW, VL."""
    return fastgen_isa_level()
