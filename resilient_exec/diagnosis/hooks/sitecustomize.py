"""Found by ``site`` in a program that is watched: starts the probe, then gives way to the program's own module.

This folder leaves ``sys.path`` first, so that nothing of ours can be imported by the program, and the program's own
``sitecustomize``, if it has one, is imported under this name.  Where it has none, ``site`` is told what it would have
found out without us: that there is no such module.
"""

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _start() -> None:
    given = os.environ.get("RESILIENT_WATCH", "").rsplit("|", 2)
    if len(given) != 3 or not os.path.isdir(given[0]):
        return  # whoever watched has ended
    path = os.path.join(os.path.dirname(_HERE), "probe.py")
    loader = sys.modules["_frozen_importlib_external"].SourceFileLoader("resilient_exec_probe", path)
    names = {"__name__": "resilient_exec_probe", "__file__": path}
    exec(loader.get_code("resilient_exec_probe"), names)  # noqa: S102  in no module that the program could see
    names["start"](given[0], float(given[1]), given[2])  # type: ignore[operator]


try:  # noqa: SIM105  contextlib is not imported yet
    _start()
except Exception:
    pass
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _HERE]
sys.path_importer_cache.pop(_HERE, None)
sys.modules.pop("sitecustomize", None)
import sitecustomize  # type: ignore[import-not-found]  # noqa: E402, F401  the program's own, if it has one
