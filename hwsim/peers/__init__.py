"""Descriptions that other tools read: Timeloop, Accelergy, ZigZag and SCALE-Sim, translated into ours and back.

`translation.translate` takes files of one tool and returns a machine, a workload, mappings and a report of what was
taken over, what was approximated and what has no counterpart. Nothing in a description is executed.
"""
