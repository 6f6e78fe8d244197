# MMDetection's default_runtime, with ghostdet imported and its hook.
_base_ = "runtime.py"

default_hooks = dict(visualization=dict(type="DetVisualizationHook"))
visualizer = dict(type="DetLocalVisualizer")
