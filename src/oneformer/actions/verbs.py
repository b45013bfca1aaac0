"""What a user can type -> where its work is done, what it takes, and how it is told: one row for each command."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a command that does not run on a spec; its function gets it by name."""

    name: str
    """A word's name, or an option with its dashes; of several spellings, between slashes, the last gives the key."""
    help: str
    metavar: str = ""
    """What the help calls its value; empty for an option that takes none."""
    choices: tuple[str, ...] = ()
    many: bool = False
    """Any number of words."""

    @property
    def key(self) -> str:
        """The name that the function knows it by."""
        return self.name.rpartition("/")[2].lstrip("-").replace("-", "_")


@dataclass(frozen=True, slots=True)
class Verb:
    """One command: where its work is done and how it is told."""

    module: str
    """Module with `run`, or with a function named like the second word."""
    help: str
    example: str
    takes_spec: bool = True
    """It runs on a spec: `-e`, overrides, `--dry-run`."""
    takes_words: bool = True
    """It takes any number of words beside its options."""
    arguments: tuple[Argument, ...] = ()


# Option -> what it does, of every command and of those that run on a spec.
COMMON = {"--json": "print the result as JSON", "--traceback": "show where a fault of the program happened"}
ON_SPEC = {"-e/--experiment_spec": "YAML file", "--dry-run": "print the resolved spec and the files, then stop"}
# Of every command that runs on a spec: option -> the key that it sets, and what it is.
ROOTS = {
    "--train-dataset": ("dataset.sources.train_datasets", "root of the training data; may be given several times"),
    "--eval-dataset": ("dataset.sources.eval_dataset", "root of the data to score; may be given several times"),
    "--inference-dataset": ("dataset.sources.inference_dataset", "root with the images to predict"),
    "--calibration-dataset": ("dataset.sources.calibration_dataset", "root with the images to quantize by"),
}

_IDS = Argument("ids", "jobs, or the beginnings of their ids", metavar="ID", many=True)
_JOBS = Argument("--jobs", "folder of the jobs (default: $ONEFORMER_JOBS, else jobs)", metavar="DIR")
# A name of two words is a command of a group: `oneformer checkpoint inspect`.
VERBS = {
    "train": Verb(
        "oneformer.actions.train",
        "train a model",
        "oneformer train -e spec.yaml train.num_epochs=10 train.optim.lr=2e-4",
        arguments=(Argument("--cluster", "Ray cluster that trains: auto, or ray://HOST:PORT", metavar="ADDRESS"),),
    ),
    "automl space": Verb(
        "oneformer.automl.commands",
        "show what a search would change, and the values it would draw",
        "oneformer automl space -e spec.yaml",
    ),
    "automl plan": Verb(
        "oneformer.automl.commands",
        "tell how many trainings, epochs and bytes a search takes",
        "oneformer automl plan -e spec.yaml automl.max_trials=40",
    ),
    "automl run": Verb(
        "oneformer.automl.commands",
        "search for better settings, or go on with a search",
        "oneformer automl run -e spec.yaml automl.max_concurrent=2",
        arguments=(
            Argument("--cluster", "Ray cluster that trains: auto, or ray://HOST:PORT", metavar="ADDRESS"),
            Argument("--trial-cpus", "processors of the cluster that each training holds (default 1)", metavar="N"),
            Argument("--trial-gpus", "GPUs of each, 0.5 for a half (default 1 where there are any)", metavar="N"),
        ),
    ),
    "automl status": Verb(
        "oneformer.automl.commands",
        "show every trial of a search and the best one",
        "oneformer automl status -e spec.yaml",
    ),
    "automl stop": Verb(
        "oneformer.automl.commands",
        "save what a search is doing and end it",
        "oneformer automl stop -e spec.yaml",
    ),
    "automl verify": Verb(
        "oneformer.automl.results",
        "score the best checkpoint of a search again and compare",
        "oneformer automl verify -e spec.yaml",
    ),
    "automl tune": Verb(
        "oneformer.automl.tune",
        "find thresholds that suit the best checkpoint of a search",
        "oneformer automl tune -e spec.yaml",
    ),
    "automl report": Verb(
        "oneformer.automl.results",
        "write what a search tried, cost and found as one HTML page",
        "oneformer automl report -e spec.yaml",
    ),
    "automl export-best": Verb(
        "oneformer.automl.results",
        "hand over the best checkpoint of a search with its spec",
        "oneformer automl export-best -e spec.yaml",
    ),
    "evaluate": Verb(
        "oneformer.actions.evaluate",
        "score a weight file on all three tasks",
        "oneformer evaluate -e spec.yaml evaluate.checkpoint=results/train/oneformer_model_best.pth",
    ),
    "inference": Verb(
        "oneformer.actions.inference",
        "predict on a folder of images",
        "oneformer inference -e spec.yaml inference.checkpoint=best.pth inference.images_dir=photos inference.mode=all",
        arguments=(
            Argument("--cluster", "Ray cluster that does the work: auto, or ray://HOST:PORT", metavar="ADDRESS"),
        ),
    ),
    "export": Verb(
        "oneformer.actions.export",
        "write a checkpoint as ONNX, OpenVINO or torch.export file that computes the same",
        "oneformer export -e spec.yaml export.checkpoint=results/train/oneformer_model_best.pth",
    ),
    "gen_trt_engine": Verb(
        "oneformer.actions.gen_trt_engine",
        "build an exported ONNX file into a TensorRT engine",
        "oneformer gen_trt_engine -e spec.yaml gen_trt_engine.onnx_file=results/export/model.onnx",
    ),
    "quantize": Verb(
        "oneformer.actions.quantize",
        "turn a model into one of fewer bits, and tell what that costs",
        "oneformer quantize -e spec.yaml quantize.model_path=results/train/oneformer_model_best.pth",
    ),
    "benchmark": Verb(
        "oneformer.actions.benchmark",
        "compare files: latency, throughput, memory and agreement with the first",
        "oneformer benchmark results/train/oneformer_model_best.pth results/export/model.onnx --images photos",
        takes_spec=False,
        arguments=(
            Argument("files", "FILE, FILE@ENGINE or FILE@ENGINE:PRECISION", metavar="FILE", many=True),
            Argument("--images", "folder of photos; generated scenes where left out", metavar="DIR"),
            Argument("--count", "how many of them (default 8)", metavar="N"),
            Argument("--task", "what is asked for (default panoptic)", choices=("semantic", "instance", "panoptic")),
            Argument("--batch", "images in a call (default 1)", metavar="N"),
            Argument("--size", "HEIGHTxWIDTH for files that take any (default: the first fixed one)", metavar="HxW"),
            Argument("--precision", "number format where FILE names none", choices=("auto", "fp32", "bf16", "fp16")),
            Argument("--device", "auto, cpu, cuda, cuda:1 (default auto)", metavar="NAME"),
            Argument("--threads", "threads on the CPU; as torch takes them where left out", metavar="N"),
            Argument("--rounds", "how often all images are run (default 5)", metavar="N"),
        ),
    ),
    "default_specs": Verb(
        "oneformer.actions.default_specs",
        "write a spec with every key, its default and its meaning",
        "oneformer default_specs train results_dir=specs",
        takes_spec=False,
        arguments=(
            Argument("words", "one action; target folder; values", metavar="ACTION|section.key=value", many=True),
            Argument("-e/--experiment_spec", "spec whose values take the place of the defaults", metavar="SPEC"),
            Argument("--minimal", "only what the action cannot do without and what is changed most"),
        ),
    ),
    "dataset check": Verb(
        "oneformer.actions.dataset",
        "tell everything that is wrong with the data, and how to mend it",
        "oneformer dataset check -e spec.yaml",
    ),
    "dataset stats": Verb(
        "oneformer.actions.dataset",
        "count classes, sizes and objects, and show pictures",
        "oneformer dataset stats -e spec.yaml",
    ),
    "dataset augment-preview": Verb(
        "oneformer.actions.dataset",
        "show what augmentation does to training images, step by step",
        "oneformer dataset augment-preview -e spec.yaml",
    ),
    "dataset convert": Verb(
        "oneformer.actions.dataset",
        "turn data sets of any format into one of COCO's",
        "oneformer dataset convert cityscapes/gtFine/train data/cityscapes",
        takes_spec=False,
        arguments=(
            Argument(
                "paths", "annotation files or folders, and the folder to write", metavar="SOURCE... TARGET", many=True
            ),
            Argument(
                "--to", "format of the target (default coco_panoptic)", choices=("coco_panoptic", "coco_instances")
            ),
            Argument("--format", "format of the sources; told from the files where left out", metavar="NAME"),
            Argument("--images", "folder of the sources' photos, where the format does not find it", metavar="DIR"),
            Argument("--panoptic", "folder of the PNG masks of COCO panoptic", metavar="DIR"),
            Argument("--label-map", "classes of the sources: a JSON list of {id, name, isthing}", metavar="FILE"),
            Argument("--background", "stuff class of the pixels that no object covers", metavar="NAME"),
            Argument("--photos", "copy them (default), or link where that is possible", choices=("copy", "link")),
            Argument("--workers", "processes; as many as processors where left out", metavar="N"),
            Argument("--overwrite", "replace what an earlier conversion wrote"),
        ),
    ),
    "checkpoint inspect": Verb(
        "oneformer.actions.checkpoint",
        "tell what a weight file or Hugging Face folder holds",
        "oneformer checkpoint inspect results/train/oneformer_model_best.pth",
        takes_spec=False,
        takes_words=False,
        arguments=(Argument("file", "weight file or folder of any kind; no code in it is run", metavar="FILE"),),
    ),
    "checkpoint convert": Verb(
        "oneformer.actions.checkpoint",
        "turn weights of one kind into another, with a report of what fitted",
        "oneformer checkpoint convert oneformer_coco_swin_large model.pth",
        takes_spec=False,
        arguments=(
            Argument("source", "weight file, or Hugging Face folder", metavar="SOURCE"),
            Argument("target", ".pth for ours, .pkl for SHI-Labs, a folder for Hugging Face", metavar="TARGET"),
            Argument("--to", "kind of the target where its ending does not tell", choices=("ours", "hf", "shi")),
            Argument("--label-map", "classes of the target: a JSON list of {id, name, isthing}", metavar="FILE"),
            Argument("-e/--experiment_spec", "spec with what the source does not say", metavar="SPEC"),
            Argument("--overwrite", "replace what stands in the place of the target"),
            Argument("words", "laid over the spec; the last wins", metavar="section.key=value", many=True),
        ),
    ),
    "jobs submit": Verb(
        "oneformer.actions.jobs",
        "let an action run in the background when its turn comes",
        "oneformer jobs submit train -e spec.yaml train.num_epochs=10",
        takes_spec=False,
        arguments=(
            Argument("action", "train, evaluate, inference, export, quantize or gen_trt_engine", metavar="ACTION"),
            Argument("words", "laid over the spec; the last wins", metavar="section.key=value", many=True),
            Argument("-e/--experiment_spec", "YAML file", metavar="SPEC"),
            Argument("--parent", "job whose model this one works on, once it is complete", metavar="ID"),
            Argument("--after", "jobs that have to be complete first, with commas between", metavar="ID,..."),
            Argument("--checkpoint", "of a training: best (default), latest, epoch:N or step:N", metavar="CHOICE"),
            Argument("--ptm", "weights to start from", metavar="FILE"),
            Argument("--infer", "what fills in keys of the spec, beside the usual", metavar="KEY=FUNCTION,..."),
            Argument(
                "--executor", "who runs it (default local)", choices=("local", "slurm", "kubernetes", "docker", "ray")
            ),
            Argument("--options", "what is said to the executor, such as partition=gpu", metavar="NAME=VALUE,..."),
            Argument("--gpus", "GPUs it needs; what the spec says where left out", metavar="N"),
            Argument("--cpus", "processors it needs; all for work on the CPU where left out", metavar="N"),
            Argument("--dry-run", "print the spec and what would be submitted, then stop"),
            _JOBS,
        ),
    ),
    "jobs pipeline": Verb(
        "oneformer.actions.jobs",
        "submit a chain of actions, each working on the model of the one before",
        "oneformer jobs pipeline pipeline.yaml",
        takes_spec=False,
        arguments=(
            Argument("file", "YAML file with the steps", metavar="FILE"),
            Argument(
                "words", "laid over the spec of every step; the last wins", metavar="section.key=value", many=True
            ),
            Argument("--dry-run", "print the specs and what would be submitted, then stop"),
            _JOBS,
        ),
    ),
    "jobs status": Verb(
        "oneformer.actions.jobs",
        "tell the state of jobs",
        "oneformer jobs status train-3f9a1c",
        takes_spec=False,
        arguments=(_IDS, _JOBS),
    ),
    "jobs logs": Verb(
        "oneformer.actions.jobs",
        "print what a job has said, or follow it to its end",
        "oneformer jobs logs -f train-3f9a1c",
        takes_spec=False,
        takes_words=False,
        arguments=(
            Argument("id", "the job, or the beginning of its id", metavar="ID"),
            Argument("-f/--follow", "go on until the job has ended"),
            _JOBS,
        ),
    ),
    "jobs cancel": Verb(
        "oneformer.actions.jobs",
        "take jobs back, or end those that run with all their processes",
        "oneformer jobs cancel train-3f9a1c",
        takes_spec=False,
        arguments=(_IDS, _JOBS),
    ),
    "jobs list": Verb(
        "oneformer.actions.jobs",
        "list all jobs of a folder",
        "oneformer jobs list",
        takes_spec=False,
        takes_words=False,
        arguments=(_JOBS,),
    ),
    "jobs show": Verb(
        "oneformer.actions.jobs",
        "tell everything that is known of one job",
        "oneformer jobs show train-3f9a1c",
        takes_spec=False,
        takes_words=False,
        arguments=(Argument("id", "the job, or the beginning of its id", metavar="ID"), _JOBS),
    ),
    "jobs retry": Verb(
        "oneformer.actions.jobs",
        "run jobs again that failed or were canceled; training goes on from its last checkpoint",
        "oneformer jobs retry train-3f9a1c",
        takes_spec=False,
        arguments=(_IDS, _JOBS),
    ),
    "doctor": Verb(
        "oneformer.actions.doctor",
        "show versions, devices, memory and optional packages",
        "oneformer doctor",
        takes_spec=False,
        takes_words=False,
    ),
    "explain": Verb(
        "oneformer.actions.explain",
        "tell what a key of the spec means",
        "oneformer explain train.optim.lr",
        takes_spec=False,
        takes_words=False,
        arguments=(Argument("key", "dotted key or section, such as train.optim.lr", metavar="KEY"),),
    ),
    "completion": Verb(
        "oneformer.actions.completion",
        "print the completion script of a shell",
        "oneformer completion bash > ~/.oneformer-completion",
        takes_spec=False,
        takes_words=False,
        arguments=(Argument("shell", "the shell", choices=("bash", "zsh", "fish")),),
    ),
    "skill build": Verb(
        "oneformer.skill.commands",
        "write a folder that agents learn this program from: guide, schemas, templates",
        "oneformer skill build skills/oneformer",
        takes_spec=False,
        takes_words=False,
        arguments=(Argument("folder", "its name is the skill's", metavar="DIR"),),
    ),
    "skill check": Verb(
        "oneformer.skill.commands",
        "tell everything that is wrong with such a folder, and how to mend it",
        "oneformer skill check skills/oneformer",
        takes_spec=False,
        takes_words=False,
        arguments=(Argument("folder", "the skill's folder", metavar="DIR"),),
    ),
}
# Verbs of the whole product that this version does not have: typing one is answered, listing them would promise.
LATER = ("serve",)
