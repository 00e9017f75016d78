"""First stages for tests: the settings that latent-diffusion's arguments mean, a small one of each kind."""

from typing import Any

from unnoise.networks.first_stage_settings import FirstStageSettings, KlSettings, VqSettings


def first_stage_settings_of(args: dict[str, Any]) -> FirstStageSettings:
    """Our names for the arguments of latent-diffusion's AutoencoderKL, VQModel and VQModelInterface."""
    body = args["ddconfig"]
    levels = {
        body["resolution"] // 2**k: 2**k for k in range(len(body["ch_mult"]))
    }  # the original's rounding
    assert body["out_ch"] == body["in_channels"]
    values = {
        "in_channels": body["in_channels"],
        "latent_channels": args["embed_dim"],
        "inner_channels": body["z_channels"],
        "width": body["ch"],
        "depth": body["num_res_blocks"],
        "channel_mult": tuple(body["ch_mult"]),
        "attention": tuple(levels[side] for side in body["attn_resolutions"] if side in levels),
        "attention_type": "linear" if body.get("use_linear_attn") else body.get("attn_type", "vanilla"),
        "dropout": body.get("dropout", 0.0),
    }
    if body["double_z"]:
        return KlSettings(**values)
    return VqSettings(**values, codes=args["n_embed"], beta_on="codebook")


TINY_KL = KlSettings(in_channels=3, width=32, depth=1, channel_mult=(1, 2, 2), attention_type="none")
TINY_VQ = VqSettings(
    in_channels=3, width=32, depth=1, channel_mult=(1, 2, 2), attention_type="none", codes=16
)
