#!/bin/sh
# Run the kernels' tests under AddressSanitizer and UndefinedBehaviorSanitizer. usage: sanitize.sh PYTHON
set -eu
python=$1 cc=${CC:-gcc}
"$python" -m pip install -q --no-build-isolation --no-deps --upgrade --target build/sanitize \
    -Cbuild-dir=build/sanitize-cmake -Ccmake.define.FASTGEN_SANITIZE=address,undefined .
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
# -S leaves out the editable install; the sanitized one comes first. NumPy and Python are not theirs to check.
usable=$("$python" -c 'from fastgen._kernels._cpu import isa_level; print({3: "v3", 4: "v3 v4"}.get(isa_level(), ""))')
for isa in baseline $usable; do
    FASTGEN_ISA=$isa ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
        LD_PRELOAD="$($cc -print-file-name=libasan.so) $($cc -print-file-name=libubsan.so)" \
        "$python" -S -c "
import sys
sys.path[:0] = ['build/sanitize', '$packages']
import fastgen, pytest
assert 'build/sanitize' in fastgen.__file__, fastgen.__file__
assert fastgen._kernels.isa == '$isa'
sys.exit(pytest.main(['-q', '-x', '-p', 'no:cacheprovider', 'tests/test_simd.py', 'tests/test_kernels.py',
                      'tests/test_families.py', 'tests/test_mixture_kernel.py', 'tests/test_hmm_kernels.py',
                      'tests/test_hmm_checkpoints.py', 'tests/test_naive_bayes_kernel.py',
                      'tests/test_naive_bayes_functions.py',
                      'tests/test_graphical_message_passing.py']))"
done
