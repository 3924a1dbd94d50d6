"""From an operator graph to a `Workload`: a table operator -> handler, one handler per operator.

`ir.OpGraph` is the neutral form that every front end fills (torch.export, the recorder, `.pt2` archives);
`lower.lower` walks it node by node. Only `record` needs torch.
"""
