"""First stages and their codebook against those of latent-diffusion (group ldm_autoencoder)."""

from typing import Any

import torch
from torch import Tensor

from tests.goldens import Case, assert_close, golden, manifest
from tests.networks.first_stages import first_stage_settings_of
from unnoise.networks.autoencoder import KlAutoencoder, VqAutoencoder, build_first_stage
from unnoise.networks.posterior import Posterior
from unnoise.networks.quantize import UsedCodes, VectorQuantizer


def is_kl(spec: dict[str, Any]) -> bool:
    return spec.get("class_", "") == "AutoencoderKL"


def is_vq(spec: dict[str, Any]) -> bool:
    return spec.get("class_", "").startswith("VQModel")


def is_remap(spec: dict[str, Any]) -> bool:
    return "unknown_index" in spec.get("constructor_args", {})


def is_conditioner(spec: dict[str, Any]) -> bool:
    """Of the encoders of conditions, which have tests of their own."""
    return bool({"vocab_size", "n_classes", "n_stages"} & set(spec.get("constructor_args", {})))


def built(case: Case) -> Any:
    """The network of a case in eval mode, its weights loaded strictly."""
    network = build_first_stage(first_stage_settings_of(case.spec["constructor_args"])).eval()
    assert {k: list(v.shape) for k, v in network.state_dict().items()} == case.spec["state_dict_shapes"]
    network.load_state_dict(case.state_dict(), strict=True)
    return network


def compare(case: Case, ours: dict[str, Tensor], given: tuple[str, ...] = ()) -> None:
    """Every recorded output, indices exactly; `given` names those that are inputs in truth."""
    assert ours.keys() | set(given) == case.outputs.keys(), case.id
    tolerance = (
        1e-4 if case.spec["constructor_args"].get("ddconfig", {}).get("attn_type") == "linear" else 1e-5
    )
    for name, value in ours.items():
        recorded = case.output(name)
        if recorded.dtype == torch.int64:
            assert torch.equal(value, recorded), name
        else:
            assert_close(value, recorded, tolerance, name)


@golden("ldm_autoencoder", only=is_kl)
@torch.no_grad()
def test_kl_first_stages(case: Case) -> None:
    network = built(case)
    assert isinstance(network, KlAutoencoder)
    moments = network.encode(case.input("x"))
    posterior = Posterior.of(moments)
    sample = posterior.sample(case.input("noise"))
    big = Posterior.of(case.input("big_moments"))
    ours = {
        "moments": moments,
        "mean": posterior.mean,
        "logvar_clamped": posterior.logvar,
        "std": posterior.std,
        "mode": posterior.mean,
        "sample": sample,
        "kl": posterior.kl(),
        "nll_of_sample": posterior.nll(sample),
        "decoded_mode": network.decode(posterior.mean),
        "decoded_sample": network.decode(sample),
        "big_logvar_clamped": big.logvar,
        "big_std": big.std,
        "kl_between_moderate": Posterior.of(case.output("moderate_a")).kl_to(
            Posterior.of(case.output("moderate_b"))
        ),
    }
    compare(case, ours, given=("moderate_a", "moderate_b"))
    assert_close(network(case.input("x"), case.input("noise"))[0], ours["decoded_sample"], 1e-5, "forward")


@golden("ldm_autoencoder", only=is_vq)
def test_vq_first_stages(case: Case) -> None:
    network = built(case)
    assert isinstance(network, VqAutoencoder)
    x = case.input("x")
    with torch.no_grad():
        latents = network.encode(x)
        reconstruction, quantised = network(x)
        sane = case.spec["constructor_args"].get("sane_index_shape", False)
        ours = {
            "prequant": latents,
            "quantized": quantised.latents,
            "codebook_loss": quantised.loss,
            "indices": quantised.indices if sane else quantised.indices.flatten(),
            "decoded": reconstruction,
            "codebook_entries_of_indices": network.quantize.lookup(quantised.indices),
            "interface_encode": latents,
            "interface_decode": network.decode(latents),
            "interface_decode_force_not_quantize": network.decode_codes(latents),
        }
    for name, beta_on in (("legacy", "codebook"), ("corrected", "commitment")):
        z = case.output("prequant").requires_grad_()
        codes = network.quantize.embedding.weight
        quantizer = VectorQuantizer(*codes.shape, 0.25, beta_on)
        quantizer.embedding.weight.data.copy_(codes)
        found = quantizer(z)
        loss = (found.latents * case.input("probe")).mean() + found.loss
        gradients = torch.autograd.grad(loss, [z, quantizer.embedding.weight])
        ours[f"loss_{name}"] = found.loss.detach()
        ours[f"grad_z_{name}"], ours[f"grad_codebook_{name}"] = gradients
    compare(case, ours)


@golden("ldm_autoencoder", only=is_remap)
@torch.no_grad()
def test_codes_in_use(case: Case) -> None:
    args = case.spec["constructor_args"]
    on = "codebook" if args.get("legacy", True) else "commitment"
    quantizer = VectorQuantizer(args["n_e"], args["e_dim"], args["beta"], on)
    quantizer.embedding.weight.copy_(case.input("codebook"))
    found = quantizer(case.input("z"))
    used = UsedCodes(case.input("used"), args["unknown_index"])
    places = used.places(found.indices)
    compare(
        case,
        {
            "z_q": found.latents,
            "loss": found.loss,
            "indices": places if args.get("sane_index_shape") else places.reshape(-1, 1),
            "codebook_entries": quantizer.lookup(used.indices(places)),
        },
    )


def test_every_kind_is_known() -> None:
    for spec in manifest("ldm_autoencoder")["cases"]:
        kinds = [is_kl(spec), is_vq(spec), is_remap(spec), is_conditioner(spec)]
        assert sum(kinds) == 1, spec["id"]
