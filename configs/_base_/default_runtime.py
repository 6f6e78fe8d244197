# MMDetection's default_runtime, which also imports ghostdet and adds its hook.
_base_ = "runtime.py"

default_hooks = dict(visualization=dict(type="DetVisualizationHook"))
visualizer = dict(type="DetLocalVisualizer")
