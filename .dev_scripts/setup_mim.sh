#!/usr/bin/env bash
# Create .venv-mim: the command `mim` on top of the packages of .venv.
#
# mim starts scripts with its own interpreter, so its environment must see
# torch and the OpenMMLab packages. A .pth file appends those of .venv; what
# mim pins itself stays out of .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PYTHONNOUSERSITE=1

venv=.venv-mim
stamp=$venv/.setup-stamp

site_packages() {
    "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
}

fingerprint() {
    cat requirements/mim.txt "${BASH_SOURCE[0]}"
    pwd
    .venv/bin/python --version
}

if [[ -f $stamp ]] && cmp -s "$stamp" <(fingerprint); then
    exit
fi
echo "==> $venv: mim on top of .venv (usually 30 s)"
.venv/bin/python -m venv --clear "$venv"
# A release of numpy other than .venv's could not serve what was built there.
"$venv/bin/python" -m pip install -qq -r requirements/mim.txt \
    "$(grep '^numpy==' requirements/modern.txt)"
echo "import site; site.addsitedir('$(site_packages .venv)')" \
    >"$(site_packages "$venv")/zz_main_environment.pth"
"$venv/bin/mim" --version
fingerprint >"$stamp"
echo "    took $SECONDS s"
