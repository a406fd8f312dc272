"""Terms of an objective: what a student is pulled towards. One term a file, one line in `ALL`.

An objective is a weighted sum: `0.1 * task_loss() + 0.9 * kd(temperature=4)`.
"""

from __future__ import annotations

from limbeck.mechanics.terms.attention_maps import attention_maps
from limbeck.mechanics.terms.attention_transfer import attention_transfer
from limbeck.mechanics.terms.channel_wise import channel_wise
from limbeck.mechanics.terms.cka import cka
from limbeck.mechanics.terms.correlation_congruence import correlation_congruence
from limbeck.mechanics.terms.cosine import cosine
from limbeck.mechanics.terms.crd import crd
from limbeck.mechanics.terms.ctkd import ctkd
from limbeck.mechanics.terms.deep_supervision import deep_supervision
from limbeck.mechanics.terms.dist import dist
from limbeck.mechanics.terms.dkd import dkd
from limbeck.mechanics.terms.ema_teacher import ema_teacher
from limbeck.mechanics.terms.ewc import ewc
from limbeck.mechanics.terms.factor_transfer import factor_transfer
from limbeck.mechanics.terms.features import Pair as Pair
from limbeck.mechanics.terms.fsp import Flow as Flow
from limbeck.mechanics.terms.fsp import fsp
from limbeck.mechanics.terms.hard_label import hard_label
from limbeck.mechanics.terms.hidden_states import hidden_states
from limbeck.mechanics.terms.hint import hint
from limbeck.mechanics.terms.jsd import jsd
from limbeck.mechanics.terms.kd import kd
from limbeck.mechanics.terms.l2_sp import l2_sp
from limbeck.mechanics.terms.label_smoothing import label_smoothing
from limbeck.mechanics.terms.logit_mse import logit_mse
from limbeck.mechanics.terms.margin_mse import margin_mse
from limbeck.mechanics.terms.mgd import mgd
from limbeck.mechanics.terms.minilm_relations import minilm_relations
from limbeck.mechanics.terms.mutual import mutual
from limbeck.mechanics.terms.nkd import nkd
from limbeck.mechanics.terms.nst import nst
from limbeck.mechanics.terms.overhaul import overhaul
from limbeck.mechanics.terms.pearson import pearson
from limbeck.mechanics.terms.pkt import pkt
from limbeck.mechanics.terms.retain import retain
from limbeck.mechanics.terms.review import review
from limbeck.mechanics.terms.rkd import rkd
from limbeck.mechanics.terms.seed import seed
from limbeck.mechanics.terms.similarity_preserving import similarity_preserving
from limbeck.mechanics.terms.srd import srd
from limbeck.mechanics.terms.task_loss import task_loss
from limbeck.mechanics.terms.ttm import ttm
from limbeck.mechanics.terms.vid import vid
from limbeck.mechanics.terms.vkd import vkd

ALL = (
    attention_maps,
    attention_transfer,
    channel_wise,
    cka,
    correlation_congruence,
    cosine,
    crd,
    ctkd,
    deep_supervision,
    dist,
    dkd,
    ema_teacher,
    ewc,
    factor_transfer,
    fsp,
    hard_label,
    hidden_states,
    hint,
    jsd,
    kd,
    l2_sp,
    label_smoothing,
    logit_mse,
    margin_mse,
    mgd,
    minilm_relations,
    mutual,
    nkd,
    nst,
    overhaul,
    pearson,
    pkt,
    retain,
    review,
    rkd,
    seed,
    similarity_preserving,
    srd,
    task_loss,
    ttm,
    vid,
    vkd,
)
