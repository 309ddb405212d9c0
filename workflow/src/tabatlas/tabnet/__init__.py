"""TabNet (Arik & Pfister 2021) for cells × genes, in plain torch and compiled loops.

Takes and gives plain tensors; knows neither counts nor paths. The dense form (`encoder`) reads like
the paper and is the reference of the sparse one (`sparse`), which every stage trains.
"""
