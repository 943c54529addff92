"""Retrieval metrics of embeddings against each other: nearfar's against pytorch-metric-learning's."""

from __future__ import annotations

from measure import main


def ways(args, tiny):
    import torch
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    import nearfar

    torch.manual_seed(0)
    n = 64 if tiny else args.n
    labels = torch.arange(n) // args.per_class
    data = torch.randn(int(labels.max()) + 1, args.dim)[labels] + torch.randn(n, args.dim)
    calculator = AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision_at_r"),
        k="max_bin_count",
        knn_func=CustomKNN(CosineSimilarity(), batch_size=args.batch),
    )

    def ours():
        return nearfar.retrieval_metrics(data, labels, ks=(1,))

    def theirs():
        return calculator.get_accuracy(data, labels)

    if not args.peak:
        first, second = ours(), theirs()
        assert abs(first["recall@1"] - second["precision_at_1"]) < 1e-4
        assert abs(first["map@r"] - second["mean_average_precision_at_r"]) < 1e-4
    return {"nearfar": ours, "pytorch_metric_learning": theirs}


if __name__ == "__main__":
    main(__doc__, ways, {"--n": 10_000, "--per-class": 4, "--dim": 128, "--batch": 1000}, repeats=5)
