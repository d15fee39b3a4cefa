#!/usr/bin/env bash
# Create .venv-docs: Sphinx on top of the packages of .venv-demo.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PYTHONNOUSERSITE=1

venv=.venv-docs
stamp=$venv/.setup-stamp

site_packages() {
    "$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
}

fingerprint() {
    cat requirements/docs.txt "${BASH_SOURCE[0]}"
    pwd
    .venv-demo/bin/python --version
}

if [[ -f $stamp ]] && cmp -s "$stamp" <(fingerprint); then
    exit
fi
echo "==> $venv: Sphinx on top of .venv-demo (usually 20 s)"
.venv-demo/bin/python -m venv --clear "$venv"
"$venv/bin/python" -m pip install -qq -r requirements/docs.txt
echo "import site; site.addsitedir('$(site_packages .venv-demo)')" \
    >"$(site_packages "$venv")/zz_main_environment.pth"
fingerprint >"$stamp"
echo "    took $SECONDS s"
