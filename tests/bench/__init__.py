"""The bench: our pair of sidecars beside direct connections, haproxy, nginx and Envoy, on one machine and in one run.

One file, one purpose, from the command line down:

    __main__    what was asked for, and the order of things
    schedule    who is measured when: interleaved rounds
    workloads   what is measured: each workload from load to figures
    proofs      does each candidate do what it claims?
    peers/      the candidates, each with its configuration
    loads       the load generators and what they print
    applications, papers   what is served; certificates for peers
    stage       two pods: network namespaces joined by a cable
    processes   start and end programs; their CPU time and memory
    floors, table, picture, machine   what is made of the figures
"""
