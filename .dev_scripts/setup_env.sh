#!/usr/bin/env bash
# Create or update a virtual environment with a pinned set of versions.
#
#   .dev_scripts/setup_env.sh modern    .venv          Python 3.11
#   .dev_scripts/setup_env.sh classic   .venv-classic  Python 3.10
#   .dev_scripts/setup_env.sh demo      .venv-demo     Python 3.11, pins of
#                                       modern, mmcv-lite: nothing is compiled
#
# Does nothing when nothing changed since the last complete run, and goes on
# where an interrupted run stopped. Variables that change what it does:
#
#   PYTHON           the interpreter to use, instead of searching for one
#   TORCH_INDEX_URL  a package index to take torch and torchvision from,
#                    such as one with CPU-only builds
#   MAX_JOBS         compilers at a time for mmcv; default: number of cores
#   FORCE_CUDA=1     build the CUDA ops of mmcv too (needs the CUDA toolkit)
set -euo pipefail

die() {
    echo "setup_env: $*" >&2
    exit 1
}

case ${1:-} in
    # transformers needs a newer torch than the classic set has, and Sphinx,
    # with which a test builds the site, a newer Python.
    modern)
        venv=.venv python_version=3.11
        more=(-r requirements/llama.txt -r requirements/docs.txt)
        ;;
    classic) venv=.venv-classic python_version=3.10 more=() ;;
    demo) venv=.venv-demo python_version=3.11 more=() ;;
    *) die "usage: $0 modern|classic|demo" ;;
esac
pins=requirements/${1/demo/modern}.txt
compiled=$([[ $1 == demo ]] || echo yes)
python=$venv/bin/python
stamp=$venv/.setup-stamp

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PYTHONNOUSERSITE=1

# Everything that the environment is made from. The stamp holds it word for
# word: comparing the two tells whether there is anything to do.
fingerprint() {
    "$python" -c 'import os, sys; print(sys.version, os.getcwd())' || return
    cat "$pins" requirements/{build,mminstall,runtime,optional,tests,demo}.txt \
        requirements/{llama,docs}.txt .dev_scripts/setup_env.sh setup.py dms_mmrazor/version.py
}

up_to_date() {
    [[ -f $stamp ]] && cmp -s "$stamp" <(fingerprint 2>/dev/null)
}

# Whether $1 runs, is the wanted version, and can make an environment in
# which C++ extensions build. A pyenv shim may exist and still not run.
suitable() {
    "$1" - "$python_version" 2>/dev/null <<'EOF'
import ensurepip, os, sys, sysconfig, venv
header = os.path.join(sysconfig.get_path('include'), 'Python.h')
version = '%d.%d' % sys.version_info[:2]
sys.exit(version != sys.argv[1] or not os.path.exists(header))
EOF
}

candidates() {
    type -aP "python$python_version" python3 || true
    local pyenv_root
    pyenv_root=$(pyenv root 2>/dev/null) || pyenv_root=${HOME:-}/.pyenv
    printf '%s\n' "$pyenv_root/versions/$python_version".*/bin/python
}

# Print the path of a suitable interpreter.
find_python() {
    local candidate needed="Python $python_version with venv and header files"
    if [[ -n ${PYTHON:-} ]]; then
        suitable "$PYTHON" || die "PYTHON=$PYTHON is not a $needed"
        echo "$PYTHON"
        return
    fi
    while read -r candidate; do
        if suitable "$candidate"; then
            echo "$candidate"
            return
        fi
    done < <(candidates)
    die "no $needed on PATH or in pyenv: set PYTHON=/path/to/python"
}

pip_install() {
    # -qq: errors only. Warnings would hide what this script says.
    "$python" -m pip install -qq --no-build-isolation -c "$pins" "$@"
}

install_torch() {
    if [[ -n ${TORCH_INDEX_URL:-} ]]; then
        pip_install --no-deps --index-url "$TORCH_INDEX_URL" torch torchvision
    fi
    pip_install torch torchvision numpy -r requirements/build.txt
}

install_mmcv() (
    export MMCV_WITH_OPS=1 FORCE_CUDA="${FORCE_CUDA:-0}"
    export MAX_JOBS="${MAX_JOBS:-$(getconf _NPROCESSORS_ONLN)}"
    # Without ninja on PATH one file is compiled after the other.
    export PATH="$PWD/$venv/bin:$PATH"
    # A visible GPU would make mmcv's setup.py ask for a CUDA compiler.
    [[ $FORCE_CUDA == 1 ]] || export CUDA_VISIBLE_DEVICES=
    pip_install "$@" mmcv
)

install_rest() {
    pip_install -r requirements/mminstall.txt -r requirements/runtime.txt \
        -r requirements/optional.txt -r requirements/tests.txt "${more[@]}"
}

install_for_demo() {
    pip_install -r requirements/demo.txt mmengine mmrazor matplotlib \
        -r requirements/runtime.txt
}

install_self() {
    # The older way of `-e`: with PEP 517 the package counts as living in
    # site-packages, where mim finds neither its tools nor its configs.
    pip_install --no-use-pep517 --no-deps -e .
}

check_imports() {
    # pip's cache may hold an mmcv that was built against another torch.
    if ! "$python" -W ignore -c 'import mmcv.ops' 2>/dev/null; then
        echo "    mmcv's ops do not load: building them again"
        install_mmcv --no-cache-dir --no-deps --force-reinstall
    fi
    "$python" -W ignore -c 'import mmcv.ops, mmdet, mmpretrain, dms_mmrazor'
}

# step TITLE USUAL COMMAND...: say what happens and how long it took.
step() {
    local title=$1 usual=$2 start=$SECONDS
    shift 2
    running=$title
    echo "==> $title (usually $usual)"
    "$@"
    echo "    took $((SECONDS - start)) s"
    running=
}

report_failure() {
    if [[ -n $running ]]; then
        echo "setup_env: '$running' failed; run again to go on there" >&2
    fi
}

lock() {
    exec 9<"$pins"
    if command -v flock >/dev/null && ! flock -n 9; then
        echo "Waiting for another run that sets up $venv"
        flock 9
    fi
}

main() {
    if up_to_date; then
        return
    fi
    lock
    if up_to_date; then
        return
    fi

    if [[ -n $compiled ]] && ! "$python" -c 'import mmcv' 2>/dev/null; then
        command -v "${CXX:-c++}" >/dev/null ||
            die "no C++ compiler: install one or set CXX (mmcv needs it)"
    fi
    if "$python" -c '' 2>/dev/null && ! suitable "$python"; then
        die "$venv is not a Python $python_version: run 'make clean-env'"
    fi

    local base=
    if ! "$python" -m pip --version >/dev/null 2>&1; then
        base=$(find_python)
    fi

    local usual="about 10 minutes"
    [[ -n $compiled ]] || usual="about 3 minutes"
    echo "Setting up $venv from $pins ($usual when new)"
    running=
    trap report_failure EXIT
    if [[ -n $base ]]; then
        step "Virtual environment" "5 s" "$base" -m venv --clear "$venv"
    fi
    rm -f "$stamp"
    fingerprint >"$stamp.new"
    step "PyTorch, a download of some GB" "1-5 min" install_torch
    if [[ -n $compiled ]]; then
        step "mmcv, built from source" "5-8 min on 2 cores, instant if cached" install_mmcv
        step "OpenMMLab packages and tools" "30 s" install_rest
    else
        step "mmcv-lite, mmengine, mmrazor" "30 s" install_for_demo
    fi
    step "This package, editable" "5 s" install_self
    if [[ -n $compiled ]]; then
        step "Check of imports" "15 s" check_imports
    fi
    mv "$stamp.new" "$stamp"
    echo "$venv is ready after $SECONDS s"
}

main
