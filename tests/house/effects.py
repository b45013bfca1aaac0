"""Key of the spec -> another value than the base spec has, and the look that has to show a difference.

Rule 4 of the house, no dead field: a key stands here, or in `oneformer/spec/unread.py` with the reason why nothing
reads it. A new key needs a row. `on` is laid over the base spec on both sides, `also` only where the new value would
not be allowed alone.
"""

from __future__ import annotations

from house import look_data, look_export, look_quantize, look_runs, look_sources, look_trt
from house.effects_backbones import BACKBONES, COARSE
from house.look_automl import advised, command, folder, given_up, planned, ran, searched
from house.look_export import AS_PROGRAM, SMALL, exported
from house.look_model import learning, logits, losses, noisy_logits, segments, shapes
from house.look_quantize import FOUR_BITS, STATIC, quantized
from house.look_runs import alone, devices, evaluated, gradients, groups, predicted, rates, tracker, trained
from house.look_trt import INT8, OPEN, RTX, built
from house.row import Row

HEAD = {
    "in_features": Row("[res4, res5]", shapes, on=COARSE),
    "pixel_decoder_name": Row("BasePixelDecoder", shapes),
    "norm": Row("none", shapes),
    "loss_weight": Row("2", losses),
    "common_stride": Row("8", shapes),
    "transformer_enc_layers": Row("2", shapes),
    "convs_dim": Row("24", shapes),
    "mask_dim": Row("24", shapes),
    "deformable_transformer_encoder_in_features": Row(
        "[res4, res5]", shapes, on=("model.one_former.num_feature_levels=2",)
    ),
    "num_classes": Row("7", shapes),
    "dim_feedforward": Row("24", shapes),
    "num_points": Row("2", shapes),
    "mask_position": Row("true", logits),
}
FORMER = {
    "hidden_dim": Row("24", shapes),
    "nheads": Row("4", logits),
    "dim_feedforward": Row("24", shapes),
    "enc_layers": Row("1", shapes),
    "dec_layers": Row("4", shapes),
    "pre_norm": Row("true", logits),
    "enforce_input_proj": Row("true", shapes),
    "size_divisibility": Row("128", look_data.validation),
    "num_object_queries": Row("9", shapes),
    "query_init": Row("spread", logits),
    "position_turns": Row("2.5", logits),
    "train_num_points": Row("48", losses),
    "oversample_ratio": Row("2", losses),
    "importance_sample_ratio": Row("0.5", losses),
    "mask_weight": Row("1", losses),
    "dice_weight": Row("1", losses),
    "class_weight": Row("1", losses),
    "no_object_weight": Row("0.5", losses),
    "deep_supervision": Row("false", noisy_logits),
    "dropout": Row("0.5", noisy_logits),
    "class_dec_layers": Row("2", shapes),
    "contrastive_weight": Row("2", losses),
    "contrastive_temperature": Row("0.5", losses),
    "use_task_norm": Row("false", logits),
    "num_feature_levels": Row("2", shapes),
}
TEXT = {
    "context_length": Row("20", shapes, also=("dataset.task_seq_len=20",)),
    "vocab_size": Row("49500", shapes),
    "width": Row("12", shapes),
    "num_layers": Row("2", shapes),
    "n_ctx": Row("3", shapes),
    "proj_num_layers": Row("3", shapes),
    "task_padding": Row("tao", look_data.validation),
}
MODEL = {
    "backbone.name": Row("resnet50", shapes),
    "backbone.freeze_at": Row("2", learning),
    "test.object_mask_threshold": Row("0.5", segments),
    "test.overlap_threshold": Row("0.9", segments),
    "test.test_topk_per_image": Row("3", segments),
    "test.mask_threshold": Row("0.7", segments),
    "task_toggling.semantic_on": Row("false", look_data.training),
    "task_toggling.instance_on": Row("false", look_data.training),
    "task_toggling.panoptic_on": Row("false", look_data.training),
}
SPLITS = ("train", "val", "test")
NO_FILE = "annotations is a file, not a folder"
DATA = {
    "train.format": Row("semantic_png", look_data.training, refused=NO_FILE),
    "val.format": Row("semantic_png", look_data.validation, refused=NO_FILE),
    "test.format": Row("semantic_png", look_data.test, refused=NO_FILE),
    "background": Row(
        "sky", look_data.training, on=("dataset.train.annotations={instances}", "dataset.train.panoptic=")
    ),
    "void_values": Row(
        "[0]",
        look_data.training,
        on=("dataset.train.annotations={pictures}", "dataset.train.panoptic="),
        refused="numbers that are no class: 255",
    ),
    "train.batch_size": Row("3", look_data.training),
    "train.num_workers": Row("2", look_data.loaders),
    "train.images": Row("{other.images}", look_data.training),
    "train.annotations": Row("{other.annotations}", look_data.training),
    "train.panoptic": Row("{other.panoptic}", look_data.training),
    "val.batch_size": Row("3", look_data.validation),
    "val.num_workers": Row("2", look_data.loaders),
    "val.images": Row("{other.images}", look_data.validation),
    "val.annotations": Row("{other.annotations}", look_data.validation),
    "val.panoptic": Row("{other.panoptic}", look_data.validation),
    "val.names": Row("harbour", evaluated, on=("dataset.test.annotations=",)),
    "test.batch_size": Row("3", look_data.test),
    "test.num_workers": Row("2", look_data.loaders),
    "test.images": Row("{other.images}", look_data.test),
    "test.annotations": Row("{other.annotations}", look_data.test),
    "test.panoptic": Row("{other.panoptic}", look_data.test),
    "test.names": Row("harbour", evaluated),
    "pin_memory": Row("false", look_data.loaders),
    "pixel_mean": Row("[1,2,3]", look_data.training),
    "pixel_std": Row("[1,2,3]", look_data.training),
    "contiguous_id": Row(
        "false", look_data.classes, on=("dataset.label_map={falling}", *(f"dataset.{s}.annotations=" for s in SPLITS))
    ),
    "label_map": Row("{other.label_map}", look_data.classes),
    "task_prob_train": Row("{{semantic: 1}}", look_data.training),
    "task_prob_val": Row("{{semantic: 1}}", trained),
    "task_seq_len": Row("20", look_data.validation, also=("model.text_encoder.context_length=20",)),
    "max_seq_len": Row("8", look_data.training),
    "image_size": Row("32", look_data.training),
    "min_scale": Row("1.0", look_data.training),
    "max_scale": Row("0.5", look_data.training),
    "cutmix_prob": Row("1", look_data.training),
    "max_image_mpx": Row(
        "0.002", look_data.validation, on=("dataset.augmentation.train_crop_size=[32,32]",), refused="max_image_mpx"
    ),
}
EDGE = ("dataset.augmentation.train_resize=shortest_edge", "dataset.augmentation.train_min_size=[64]")
AUGMENTATION = {
    "train_min_size": Row("[80, 100]", look_data.training, on=EDGE),
    "train_max_size": Row("70", look_data.training, on=EDGE),
    "train_crop_size": Row("[32,32]", look_data.training),
    "test_min_size": Row("32", look_data.validation),
    "test_max_size": Row("64", look_data.validation),
    "train_resize": Row("shortest_edge", look_data.training, on=("dataset.augmentation.train_min_size=[64]",)),
    "flip_prob": Row("0", look_data.training),
    "vertical_flip_prob": Row("1", look_data.training),
    "rotate90_prob": Row("1", look_data.training),
    "color_jitter_prob": Row("0", look_data.training),
    "crop_max_class_frac": Row("0.4", look_data.training, on=("dataset.min_scale=1.9",)),
    "rotation_prob": Row("1", look_data.training),
    "rotation_degrees": Row("90", look_data.training, on=("dataset.augmentation.rotation_prob=1",)),
    "blur_prob": Row("1", look_data.training),
    "blur_sigma": Row("9", look_data.training, on=("dataset.augmentation.blur_prob=1",)),
    "erase_prob": Row("1", look_data.training),
    "erase_max_frac": Row("0.9", look_data.training, on=("dataset.augmentation.erase_prob=1",)),
}
STEPS = ("train.optim.lr_scheduler=MultiStep",)
OPTIM = {
    "lr": Row("2e-3", groups),
    "backbone_multiplier": Row("0.5", groups),
    "momentum": Row("0.5", groups),
    "weight_decay": Row("0.2", groups),
    "lr_scheduler": Row("cosine", rates),
    "milestones": Row("[1, 3]", rates, on=(*STEPS, "train.optim.milestones=[2]")),
    "gamma": Row("0.5", rates, on=(*STEPS, "train.optim.milestones=[2]")),
    "warmup_iters": Row("4", rates),
    "warmup_factor": Row("0.5", rates, on=("train.optim.warmup_iters=4",)),
    "max_iter": Row("1", trained),
    "steps": Row("[3]", rates, on=(*STEPS, "train.optim.milestones=[2]")),
    "power": Row("2", rates),
    "min_lr_frac": Row("0.5", rates),
}
LIMIT, TWO_EPOCHS = ("train.clip_grad_norm=0.5",), ("train.num_epochs=2",)
TRAIN = {
    "num_gpus": Row("3", devices, on=("train.accelerator=auto",)),
    "gpu_ids": Row("[2]", devices, on=("train.accelerator=auto",)),
    "num_nodes": Row("2", devices),
    "accelerator": Row("gpu", devices),
    "seed": Row("7", trained),
    "cudnn.benchmark": Row("true", trained),
    "cudnn.deterministic": Row("false", trained),
    "num_epochs": Row("2", trained),
    "stop_at_epoch": Row("1", trained, on=TWO_EPOCHS),
    "checkpoint_interval": Row("2", trained, on=TWO_EPOCHS),
    "checkpoint_interval_unit": Row("step", trained),
    "validation_interval": Row("2", trained, on=TWO_EPOCHS),
    "val_check_interval": Row("0.5", trained),
    "resume_training_checkpoint_path": Row("{checkpoint}", trained),
    "results_dir": Row("elsewhere", look_runs.folders),
    "freeze": Row("[backbone]", look_runs.frozen),
    "pretrained_model": Row("{checkpoint}", trained),
    "pretrained_backbone": Row("{checkpoint}", trained),
    "clip_grad_norm": Row("0.5", gradients),
    "clip_grad_norm_type": Row(".inf", gradients, on=LIMIT),
    "clip_grad_type": Row("value", gradients, on=LIMIT),
    "is_dry_run": Row("true", trained),
    "precision": Row("bf16", trained),
    "distributed_strategy": Row("fsdp", look_runs.strategy),
    "verbose": Row("true", look_runs.log_level),
    "iters_per_epoch": Row("1", trained),
    "accumulate_grad_batches": Row("2", trained),
    "clip_gradients.enabled": Row("false", gradients),
    "clip_gradients.clip_type": Row("value", gradients),
    "clip_gradients.clip_value": Row("0.5", gradients),
    "clip_gradients.norm_type": Row("1", gradients),
    "ema.enabled": Row("true", trained),
    "ema.decay": Row("0.05", trained, on=("train.ema.enabled=true",)),
    "max_minutes": Row("1e-6", trained),
    "keep_checkpoints": Row("1", trained, on=TWO_EPOCHS),
    "best_metric": Row("train_loss", trained),
    "overwrite": Row("true", look_runs.claimed),
    "activation_checkpointing": Row("true", trained),
    "log_interval": Row("3", trained),
    "num_threads": Row("2", trained),
}
EVALUATE = {
    "num_gpus": Row("2", devices),
    "gpu_ids": Row("[2]", devices, on=("evaluate.accelerator=auto",)),
    "num_nodes": Row("2", alone, refused="no launcher started this process"),
    "accelerator": Row("gpu", devices),
    "checkpoint": Row("{root}/none.pth", evaluated, refused="does not exist"),
    "results_dir": Row("elsewhere", look_runs.folders),
    "trt_engine": Row("{root}/none.engine", evaluated, refused="does not exist"),
    "batch_size": Row("2", evaluated),
    "iou_per_class": Row("false", evaluated),
    "task": Row("semantic", evaluated),
    "precision": Row("bf16", evaluated),
    "threads": Row("2", look_runs.threads),
    "report_images": Row("2", evaluated),
}
INFERENCE = {
    "num_gpus": Row("2", devices),
    "gpu_ids": Row("[2]", devices, on=("inference.accelerator=auto",)),
    "num_nodes": Row("2", alone, refused="no launcher started this process"),
    "accelerator": Row("gpu", devices),
    "checkpoint": Row("{root}/none.pth", predicted, refused="does not exist"),
    "results_dir": Row("elsewhere", look_runs.folders),
    "trt_engine": Row("{root}/none.engine", predicted, refused="does not exist"),
    "batch_size": Row("2", predicted),
    "mode": Row("panoptic", predicted),
    "image_size": Row("[64,32]", predicted),
    "images_dir": Row("{data.images}", predicted),
    "precision": Row("bf16", predicted),
    "threads": Row("3", look_runs.threads),
    "recursive": Row("false", predicted),
    "overlay": Row("false", predicted),
}
PACKED = ("dataset.train.images={root}/packed.tar",)
NOTHING = tuple(f"dataset.train.{key}=" for key in ("images", "annotations", "panoptic"))
SOURCES = {
    "train_datasets": Row("{data.folder}", look_sources.paths, on=NOTHING),
    "eval_dataset": Row("{data.folder}", look_sources.paths, on=("dataset.val.images=",)),
    "inference_dataset": Row("{data.folder}", look_sources.predicted_paths, on=("inference.images_dir=",)),
    "calibration_dataset": Row("{data.folder}", look_sources.measured_paths),
    "cache_dir": Row("{root}/cache", look_sources.paths, on=PACKED),
    "retries": Row("2", look_sources.tries),
    "max_gib": Row("1e-6", look_sources.paths, on=PACKED, refused="max_gib"),
    "max_files": Row("2", look_sources.paths, on=PACKED, refused="max_files"),
}
EXPORT = {
    "results_dir": Row("elsewhere", look_runs.folders),
    "gpu_id": Row("2", look_export.compared_on),
    "checkpoint": Row("{root}/none.pth", exported, on=AS_PROGRAM, refused="does not exist"),
    "onnx_file": Row("elsewhere/street.onnx", look_export.planned),
    "on_cpu": Row("true", look_export.compared_on),
    "input_width": Row("64", exported, on=AS_PROGRAM),
    "input_height": Row("96", exported, on=AS_PROGRAM),
    "opset_version": Row("20", exported, on=SMALL),
    "batch_size": Row("2", exported, on=AS_PROGRAM),
    "verbose": Row("true", exported, on=AS_PROGRAM),
    "task": Row("panoptic", exported, on=AS_PROGRAM),
    "format": Row("openvino", exported, on=SMALL),
    "dynamic_size": Row("true", exported, on=AS_PROGRAM),
    "half": Row("true", exported, on=SMALL),
    "embed_preprocess": Row("true", exported, on=AS_PROGRAM),
    "simplify": Row("false", exported, on=SMALL),
    "overwrite": Row("true", look_export.in_the_way),
    "parity_images": Row("2", exported, on=AS_PROGRAM),
    "parity_images_dir": Row("{data.images}", exported, on=AS_PROGRAM),
    "accept_parity": Row("true", look_export.kept, on=AS_PROGRAM),
}
QUANTIZE = {
    "backend": Row("onnxruntime", quantized, refused="has no mode weight_only_ptq"),
    "mode": Row("dynamic_ptq", quantized),
    "algorithm": Row("entropy", look_quantize.requested, on=STATIC),
    "layers": Row("[{{module_name: 'decoder.*'}}]", quantized),
    "skip_names": Row("['decoder.*']", quantized),
    "model_path": Row("{root}/none.pth", quantized, refused="does not exist"),
    "results_dir": Row("elsewhere", look_quantize.planned),
    "backend_kwargs": Row("{{group_size: 8}}", quantized, on=FOUR_BITS),
    "device": Row("trt", quantized, refused="does not run on trt"),
    "calibration_images": Row("1", look_quantize.measured),
    "compare_images": Row("1", quantized),
    "sensitivity": Row("true", quantized),
    "overwrite": Row("true", look_quantize.in_the_way),
}
SENT = ("wandb.enable=true",)
WANDB = {
    "enable": Row("true", tracker),
    "project": Row("ships", tracker, on=SENT),
    "entity": Row("us", tracker, on=SENT),
    "group": Row("first", tracker, on=SENT),
    "tags": Row("[night]", tracker, on=SENT),
    "reinit": Row("true", tracker, on=SENT),
    "sync_tensorboard": Row("true", tracker, on=SENT),
    "save_code": Row("true", tracker, on=SENT),
    "name": Row("nine", tracker, on=SENT),
    "run_id": Row("abc", tracker, on=SENT),
}
TOP = {
    "automl_policy": Row("on", command),
    "encryption_key": Row("hush", look_runs.encrypted),
    "preset": Row("nano", shapes),
    "results_dir": Row("elsewhere", look_runs.folders),
}
BATCHES = ("gen_trt_engine.tensorrt.opt_batch_size=2", "gen_trt_engine.tensorrt.max_batch_size=4")
ONE = ("gen_trt_engine.parity_images=1",)
ENGINE = {
    "results_dir": Row("elsewhere", look_trt.planned),
    "gpu_id": Row("2", look_trt.gpu),
    "onnx_file": Row("{root}/none.onnx", built, refused="does not exist"),
    "trt_engine": Row("elsewhere/street.engine", look_trt.planned),
    "timing_cache": Row("{root}/times.cache", built),
    "batch_size": Row("3", built),
    "verbose": Row("true", built),
    "library": Row("tensorrt_rtx", built),
    "overwrite": Row("true", look_trt.in_the_way),
    "parity_images": Row("2", look_trt.compared, on=ONE),
    "parity_images_dir": Row("{data.images}", look_trt.compared, on=ONE),
    "accept_parity": Row("true", look_trt.kept),
    "tensorrt.workspace_size": Row("64", built),
    "tensorrt.min_batch_size": Row("2", built, on=BATCHES),
    "tensorrt.opt_batch_size": Row("3", built, on=BATCHES),
    "tensorrt.max_batch_size": Row("4", built),
    "tensorrt.layers_precision": Row("[stem:fp32]", built),
    "tensorrt.data_type": Row("fp32", built),
    "tensorrt.min_size": Row("[32, 32]", built, on=OPEN),
    "tensorrt.opt_size": Row("[96, 64]", built, on=OPEN),
    "tensorrt.max_size": Row("[160, 160]", built, on=OPEN),
    "tensorrt.gpus": Row('["8.9"]', built, on=RTX),
    "tensorrt.calibration_dir": Row("{data.images}", look_trt.measured, on=INT8),
    "tensorrt.calibration_images": Row("1", look_trt.measured, on=INT8),
}
TWO = "{{PQ: {{direction: maximize}}, size_mib: {{direction: minimize}}}}"
AUTOML = {
    "parameters": Row("[train.optim.lr]", searched),
    "ranges": Row("{{train.optim.lr: {{valid_min: 1e-3, valid_max: 1e-2}}}}", searched),
    "tier": Row("2", searched),
    "algorithm": Row("random", planned),
    "sampler": Row("random", planned),
    "max_trials": Row("40", searched),
    "min_epochs": Row("2", planned),
    "reduction_factor": Row("2", planned),
    "seed": Row("1", planned),
    "early_stop_threshold": Row("0.0", given_up, on=("automl.algorithm=hyperband_es",)),
    "metric": Row("train_loss", ran),
    "objectives": Row(TWO, planned),
    "combine": Row("pareto", planned, on=(f"automl.objectives={TWO}",)),
    "finalists": Row("2", planned),
    "fresh_seeds": Row("3", planned, on=("automl.finalists=2",)),
    "max_concurrent": Row("2", ran),
    "max_disk_mib": Row("1", ran),
    "retries": Row("0", ran),
    "results_dir": Row("elsewhere", folder),
}
ADDRESS = (
    "automl.algorithm=hybrid", "automl.llm.endpoint=http://127.0.0.1:9/v1", "automl.llm.model=small",
    "automl.llm.fallback=qmc", "automl.llm.retries=1",
)  # fmt: skip
LLM = {
    "endpoint": Row("http://127.0.0.1:8/v1", advised, on=ADDRESS),
    "model": Row("large", advised, on=ADDRESS),
    "auth_variable": Row("OTHER_KEY", advised, on=ADDRESS),
    "temperature": Row("0.5", advised, on=ADDRESS),
    "max_tokens": Row("100", advised, on=ADDRESS),
    "timeout_s": Row("9", advised, on=ADDRESS),
    "retries": Row("2", advised, on=ADDRESS),
    "share": Row("1.0", advised, on=ADDRESS),
    "fallback": Row("random", advised, on=ADDRESS),
    "notes": Row("leaves of maize", advised, on=ADDRESS),
}
SECTIONS = {
    "": TOP, "automl": AUTOML, "automl.llm": LLM, "wandb": WANDB, "model.sem_seg_head": HEAD, "model.one_former": FORMER, "model.text_encoder": TEXT,
    "model": MODEL, **{f"model.backbone.{kind}": rows for kind, rows in BACKBONES.items()}, "dataset": DATA,
    "dataset.augmentation": AUGMENTATION, "train.optim": OPTIM, "train": TRAIN, "evaluate": EVALUATE,
    "inference": INFERENCE, "export": EXPORT, "dataset.sources": SOURCES,
    "gen_trt_engine": ENGINE, "quantize": QUANTIZE,
    "dataset.quant_calibration_dataset": {"images_dir": Row("{other.images}", look_quantize.measured)},
}  # fmt: skip
EFFECTS = {f"{section}.{key}".lstrip("."): row for section, rows in SECTIONS.items() for key, row in rows.items()}
