"""The plugin of the core: networks for any config, engines, latents, a sampler, guidance."""

from energycomp.plugins.hooks import Add, hookimpl


@hookimpl
def energycomp_register(add: Add) -> None:
    """What works without any other package."""
    add.network("two_stage", "energycomp.denoisers.two_stage:TwoStageUNet")
    add.network("unet2d", "energycomp.denoisers.unets:EmbeddingUNet")
    add.network("unet2d_condition", "energycomp.denoisers.unets:ConditionUNet")
    add.conditioner("classes", "energycomp.components.conditioners:Classes")
    add.conditioner("latents", "energycomp.components.conditioners:Latents")
    add.codec("vae", "energycomp.models.codec:VAECodec")
    add.codec("numbers", "energycomp.models.numbers:NumberProcessor")
    add.processor("image", "energycomp.images.process:ImageProcessor")
    add.processor("numbers", "energycomp.models.numbers:NumberProcessor")
    add.engine("bf16", "energycomp.denoisers.engines.half:BFloat16")
    add.engine("compile", "energycomp.denoisers.engines.compiled:Compiled")
    add.engine("onnx", "energycomp.denoisers.engines.onnx_runtime:OnnxRuntime")
    add.engine("openvino", "energycomp.denoisers.engines.openvino:OpenVINO")
    add.sampler("scheduler", "energycomp.sampling.loop:SchedulerSampler")
    add.guidance("cfg", "energycomp.sampling.guidance:ClassifierFree")
    add.guidance("interval", "energycomp.sampling.guidance:interval")
    add.guidance("attributes", "energycomp.sampling.guidance:AttributeGuidance")
