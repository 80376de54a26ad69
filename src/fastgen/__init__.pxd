# Public C-level functions: `from fastgen cimport gaussian_log_density, vector_exp, ...`.
from fastgen._kernels._gaussian cimport (
    GAUSSIAN_DIAG,
    GAUSSIAN_DIAG_MISSING,
    GAUSSIAN_FULL,
    GAUSSIAN_SPHERICAL,
    GAUSSIAN_TIED,
    gaussian_log_density,
    gaussian_work_size,
)
from fastgen._kernels._hmm cimport markov_forward_backward, markov_viterbi, markov_work_size
from fastgen._kernels._simd cimport logsumexp_row, softmax_row, vector_exp, vector_log
