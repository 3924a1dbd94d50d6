"""Reading an accelerator YAML: strict YAML with lines, its shape as pydantic models, checks across keys.

`hwsim.accelerator` puts the three together and makes the `machine.Accelerator` that everything else works with.
"""
