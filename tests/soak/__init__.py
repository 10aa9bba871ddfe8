"""Endurance: the shop under constant load while policies, certificates, sidecars and the control plane change.

    __main__   what was asked for, and the order of things
    mesh       the running lab: the shop, its processes
    clients    what runs inside pods and asks all the time; knows nothing of a mesh
    load       the clients from outside: what they did, and which failures have an excuse
    events     what happens, and when: drawn from a seed
    watch      memory and descriptors of every process over time, and how steep they are
    verdict    the bounds, and whether they hold
"""
