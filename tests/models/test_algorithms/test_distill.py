"""`model.distill` of a config: a teacher for any task."""

import pytest
import torch

from dms_mmrazor.errors import DMSError
from dms_mmrazor.registry import MODELS
from dms_mmrazor.search.distillation import distillation_loss


def algorithm(zoo, **settings):
    model = MODELS.build(
        dict(
            type='DMSAlgorithm',
            architecture=zoo.cifar_resnet(18),
            mutator=dict(parse_cfg=dict(demo_input=(1, 3, 32, 32))),
            **settings,
        )
    )
    model.init_weights()
    return model.train()


def soften(search):
    search.mutator.topk.num_updates.fill_(1)
    search.mutator.topk.pruning_ratio.data.fill_(0.3)


def logits(model, inputs):
    with torch.no_grad():
        return model.eval()(inputs, mode='tensor')


def test_structure_only_needs_no_copy(zoo, batch):
    search = algorithm(zoo, structure_only=True, distill=dict(temperature=2))
    assert search.teacher is None
    plain = zoo.plain(zoo.cifar_resnet(18))
    plain.load_state_dict(search.architecture.state_dict())
    data = batch()
    expected = logits(plain, data['inputs'])
    soften(search)
    seen = []
    handle = search.architecture.head.fc.register_forward_hook(
        lambda module, args, output: seen.append(output)
    )
    losses = search(**data, mode='loss')
    handle.remove()
    torch.testing.assert_close(seen[0], expected)
    torch.testing.assert_close(
        losses['loss_distill'], distillation_loss(seen[1], expected, 2.0)
    )
    assert losses['loss_distill'] > 0
    sum(losses[key] for key in ('loss', 'loss_distill')).backward()
    assert search.mutator.masks.mask_grad.abs().sum() > 0


def test_the_teacher_has_the_weights_of_the_start(zoo, batch):
    search = algorithm(zoo, distill=dict(task_weight=0))
    data = batch()
    # Loaded after it was built, as a runner does.
    for parameter in search.architecture.parameters():
        parameter.data.mul_(1.1)
    start = {k: v.clone() for k, v in search.architecture.state_dict().items()}
    losses = search(**data, mode='loss')
    assert losses['loss'] == 0 and 'loss_distill' in losses
    teacher = search.teacher.state_dict()
    assert all(torch.equal(teacher[k], v) for k, v in start.items())
    assert not any(p.requires_grad for p in search.teacher.parameters())
    # Resumed: the weights have moved, the teacher has not.
    for parameter in search.architecture.parameters():
        parameter.data.mul_(1.1)
    resumed = algorithm(zoo, distill=dict(task_weight=0))
    resumed.load_state_dict(search.state_dict())
    resumed(**data, mode='loss')
    teacher = resumed.teacher.state_dict()
    fixed = [k for k, _ in search.teacher.named_parameters()]
    assert all(torch.equal(teacher[k], start[k]) for k in fixed)


def test_another_teacher(zoo, batch):
    search = algorithm(zoo, distill=dict(teacher=zoo.cifar_resnet(34)))
    assert len(list(search.teacher.parameters())) > len(
        list(search.architecture.parameters())
    )
    assert 'loss_distill' in search(**batch(), mode='loss')


@pytest.mark.parametrize(
    'distill, key',
    [
        (dict(logits=['neck.*.nowhere']), 'model.distill.logits'),
        (dict(tau=4), 'model.distill.tau'),
        ('teacher', 'model.distill'),
        (dict(teacher='folder'), 'model.distill.teacher'),
    ],
)
def test_wrong_settings(zoo, distill, key):
    with pytest.raises(DMSError, match=key):
        algorithm(zoo, distill=distill)
