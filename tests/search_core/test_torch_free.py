import subprocess
import sys
from pathlib import Path

import pytest

import search_core

ROOT = Path(search_core.__file__).parents[1]


@pytest.mark.parametrize(
    "module",
    [
        "spec",
        "spec.presets",
        "spec.primitives",
        "spec.retraining",
        "genotype",
        "genotype_diff",
        "path_diff",
        "costs",
        "marginals",
        "published",
        "collapse",
        "errors",
        "alpha_labels",
        "cell_size",
        "cuboid_size",
        "derive",
    ],
)
def test_what_a_service_imports_needs_no_torch(module: str) -> None:
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "for name in ('torch', 'torchvision', 'ray', 'sklearn', 'numpy'):\n"
        "    sys.modules[name] = None\n"
        f"import search_core.{module}\n"
    )
    if module == "published":
        code += "assert search_core.published.get('DARTS_V2').genotype.hash\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
