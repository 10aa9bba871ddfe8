"""The bench: our pair of sidecars beside direct connections, haproxy, nginx and Envoy, on one machine and in one run.

One file, one purpose, from the command line down:

    __main__    what was asked for, and the order of things
    schedule    who is measured when: interleaved rounds
    workloads   what is measured: each workload from load to figures
    proofs      does each candidate do what it claims?
    peers/      the candidates, each with its configuration
    loads, grpc, web   the load generators and what they print; our own questions
    profile     perf beside a measurement
    applications, papers   what is served; certificates for peers
    stage, processes   two pods, namespaces joined by a cable; programs in them, their CPU time and memory
    figures     medians and ratios; floors, table, markdown, picture: what is made of them
    programs, machine   where the programs are; where and when it was measured
"""
