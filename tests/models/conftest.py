"""What every family of architectures has to pass."""

import copy
from typing import Any, Dict, List

import pytest
import torch

Config = Dict[str, Any]


class FamilyCheck:
    """Checks of one searched architecture.

    Args:
        zoo (Zoo): Builds models.
        randomize_structure (Callable): Chooses widths and depths.
        batch (Callable): Random images with labels.
    """

    def __init__(self, zoo: Any, randomize_structure: Any, batch: Any) -> None:
        self.zoo = zoo
        self.randomize_structure = randomize_structure
        self.batch = batch
        self.lr = 1e-3

    def search(self, architecture: Config, size: int, **kwargs: Any) -> Any:
        """A search whose network has live statistics and scales."""
        from dms_mmrazor.graph.demo import enliven
        from dms_mmrazor.supernet.plain import plain_copy

        search = self.zoo.algorithm(architecture, size, **kwargs)
        plain = plain_copy(search.architecture)
        enliven(plain, (1, 3, size, size))
        search.architecture.load_state_dict(plain.state_dict())
        return search.eval()

    def exported(self, search: Any) -> Any:
        """The plain subnet of the present choices."""
        from dms_mmrazor.subnet import prune
        from dms_mmrazor.supernet.plain import plain_copy

        plain = plain_copy(search.architecture)
        return prune(plain, search.mutator.structure()).eval()

    def structures(self, search: Any, size: int, number: int = 10) -> float:
        """Compare masked and exported subnets; the largest difference."""
        from dms_mmrazor.graph import count_macs
        from dms_mmrazor.supernet.difference import max_difference

        mutator, worst = search.mutator, 0.0
        image = torch.rand(2, 3, size, size)
        for seed in range(number):
            self.randomize_structure(mutator, seed)
            subnet = self.exported(search)
            difference = max_difference(search.architecture, subnet, image)
            worst = max(worst, difference)
            params = sum(p.numel() for p in subnet.parameters())
            macs = count_macs(subnet, (1, 3, size, size))
            assert mutator.resource('params') == pytest.approx(params, 1e-3)
            assert mutator.resource('macs') == pytest.approx(macs, rel=1e-3)
        assert worst < 1e-5
        return worst

    def rebuilt(self, search: Any, architecture: Config) -> Any:
        """The subnet built from its structure; takes the exported weights."""
        from dms_mmrazor.models.algorithms import DMSSubModel
        from dms_mmrazor.subnet.structure import structure_to_dict

        self.randomize_structure(search.mutator, 7)
        exported = self.exported(search)
        structure = structure_to_dict(search.mutator.structure())
        model = DMSSubModel(copy.deepcopy(architecture), structure)
        model.init_weights()
        model.load_state_dict(exported.state_dict())
        plain = self.zoo.plain(architecture)
        assert type(model) is type(plain)
        assert type(model.backbone) is type(plain.backbone)
        assert set(model.state_dict()) <= set(plain.state_dict())
        return model, exported

    def trains(self, model: Any, size: int, classes: int = 10) -> List[float]:
        """Two optimizer steps; every gradient is finite."""
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=self.lr)
        losses = []
        for seed in range(2):
            data = self.batch(4, size, classes, seed)
            values = model(**data, mode='loss')
            loss, _ = model.parse_losses(values)
            optimizer.zero_grad()
            loss.backward()
            for name, parameter in model.named_parameters():
                grad = parameter.grad
                assert grad is None or torch.isfinite(grad).all(), name
            optimizer.step()
            if hasattr(model, 'finish_step'):
                model.finish_step()
            losses.append(float(loss.detach()))
        return losses

    def everything(
        self, architecture: Config, size: int, unsearched: int = 0
    ) -> Any:
        """All of the above; returns the search for further looks."""
        from dms_mmrazor.graph.demo import forward_tensors

        search = self.search(architecture, size)
        left = search.mutator.report().unsearched
        assert len(left) == unsearched, left
        self.structures(search, size)
        model, exported = self.rebuilt(search, architecture)
        image = torch.rand(2, 3, size, size)
        with torch.no_grad():
            expected = forward_tensors(exported.eval(), image)
            found = forward_tensors(model.eval(), image)
        torch.testing.assert_close(found, expected)
        self.trains(model, size)
        search.set_constraints({'macs': 1.0})
        search.set_targets({'macs': search.mutator.resource('macs') / 2})
        self.trains(search, size)
        assert search.mutator.topk.num_updates == 2
        assert (search.mutator.topk.importance > 0).float().mean() > 0.5
        return search


@pytest.fixture
def family(zoo, randomize_structure, batch):
    return FamilyCheck(zoo, randomize_structure, batch)
