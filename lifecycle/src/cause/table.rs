//! The table of what frameworks and systems print before a program ends, the
//! most specific first. Wordings are those of PyTorch, JAX, TensorFlow, NumPy,
//! pip, huggingface_hub, wandb, glibc and the shells.

use super::Confidence::{self, Certain, Likely, Possible};
use super::{Cause, Cause as C};

/// A wording and what it means.
pub(super) struct Mark {
    /// One of these, lower case and apart by `|`, is in the line.
    pub(super) any: &'static str,
    pub(super) cause: Cause,
    /// The most that such a line proves.
    pub(super) most: Confidence,
    /// Often only follows from another failure.
    pub(super) follows: bool,
    pub(super) next: &'static str,
}

const fn mark(any: &'static str, cause: Cause, most: Confidence, next: &'static str) -> Mark {
    Mark { any, cause, most, follows: false, next }
}

const fn follows(any: &'static str, cause: Cause, most: Confidence, next: &'static str) -> Mark {
    Mark { any, cause, most, follows: true, next }
}

const SMALLER: &str =
    "a smaller batch, gradient accumulation or checkpointing, lower precision, or a GPU with more memory";
const PACKAGE: &str = "add it to requirements.txt or [environment] setup";
const TOKEN: &str = "set the token: [run] env HF_TOKEN = \"...\", and accept the model's terms on its page";

/// The table, most specific first.
pub(super) static MARKS: [Mark; 45] = [
    mark(
        "cuda out of memory|outofmemoryerror: cuda|cuda_error_out_of_memory|hip out of memory|cublas_status_alloc_failed|xpu out of memory|mps backend out of memory",
        C::GpuOutOfMemory,
        Certain,
        SMALLER,
    ),
    mark(
        "failed to allocate memory for requested buffer|resource_exhausted: out of memory|resource exhausted: out of memory|oom when allocating tensor",
        C::GpuOutOfMemory,
        Likely,
        SMALLER,
    ),
    mark(
        "no space left on device|errno 28|disk quota exceeded|errno 122|enospc|database or disk is full",
        C::DiskFull,
        Certain,
        "a machine with a larger disk, fewer local checkpoints ([checkpoints] keep_local), or caches elsewhere",
    ),
    mark(
        "insufficient shared memory|out of shared memory",
        C::OutOfMemory,
        Likely,
        "fewer data loader workers, or a larger /dev/shm",
    ),
    mark(
        "memoryerror|std::bad_alloc|cannot allocate memory|errno 12]|defaultcpuallocator: can't allocate memory|defaultcpuallocator: not enough memory|memory allocation of |java.lang.outofmemoryerror|unable to allocate ",
        C::OutOfMemory,
        Certain,
        "a machine with more memory, or less of it: batch size, data loader workers, caching",
    ),
    mark(
        "is killed by signal: killed",
        C::OutOfMemory,
        Likely,
        "fewer data loader workers; a machine with more memory",
    ),
    mark(
        "gpu has fallen off the bus|gpu is lost|uncorrectable ecc error|cuda_error_ecc_uncorrectable|unable to determine the device handle|cudaerrordevicesunavailable|all cuda-capable devices are busy or unavailable",
        C::GpuFault,
        Likely,
        "try another machine: outlast destroy MACHINE, then the run goes on elsewhere",
    ),
    mark(
        "device-side assert",
        C::UserError,
        Certain,
        "mostly an index out of range (labels, vocabulary); [run] env CUDA_LAUNCH_BLOCKING = \"1\" names the line",
    ),
    mark(
        "an illegal memory access was encountered|misaligned address|unspecified launch failure",
        C::UserError,
        Likely,
        "[run] env CUDA_LAUNCH_BLOCKING = \"1\" names the failing call; if it comes on one machine only, its GPU is bad",
    ),
    mark(
        "no kernel image is available for execution|driver version is insufficient|found no nvidia driver|nvidia driver on your system is too old|torch not compiled with cuda enabled|no cuda gpus are available|unsupported toolchain|no cuda-capable device is detected",
        C::EnvironmentFailed,
        Certain,
        "install a build that fits the machine's driver and GPU, or choose a machine that has one",
    ),
    mark(
        "' not found (required by|version `glibc|version `glibcxx|version 'glibc|undefined symbol:|cannot open shared object file|numpy.dtype size changed|a module that was compiled using numpy 1.x",
        C::EnvironmentFailed,
        Certain,
        "pin versions that fit each other and the machine, in requirements.txt or [environment]",
    ),
    mark("modulenotfounderror: no module named|no module named ", C::EnvironmentFailed, Certain, PACKAGE),
    mark(
        "importerror: cannot import name|importerror:",
        C::EnvironmentFailed,
        Likely,
        "versions differ from where it works: pin them in requirements.txt",
    ),
    mark(
        "no matching distribution found|resolutionimpossible|no solution found when resolving|could not build wheels|failed building wheel",
        C::EnvironmentFailed,
        Certain,
        "correct requirements.txt: that version is not to be had here",
    ),
    mark(
        "requires a different python|requires-python|unsupported python version",
        C::EnvironmentFailed,
        Likely,
        "choose the Python that the packages need",
    ),
    mark("illegal instruction", C::EnvironmentFailed, Likely, "install packages built for this processor"),
    mark(
        "gatedrepoerror|cannot access gated repo|repositorynotfounderror|you must have access to it and be authenticated|invalid user token|token is required",
        C::UserError,
        Certain,
        TOKEN,
    ),
    mark(
        "wandb: error api key|no api key configured|usageerror: api_key not configured|wandb.errors.authenticationerror|api key must be 40 characters",
        C::UserError,
        Certain,
        "set the key: [run] env WANDB_API_KEY = \"...\", or WANDB_MODE = \"offline\"",
    ),
    mark(
        "401 client error|http error 401|error 401|401 unauthorized|403 client error|http error 403|403 forbidden|accessdenied|nocredentialserror|unable to locate credentials|expiredtoken|invalidaccesskeyid|signaturedoesnotmatch",
        C::UserError,
        Likely,
        "its credentials lack or have expired: set them in [run] env",
    ),
    mark(
        "429 client error|too many requests|rate limit",
        C::RemoteService,
        Likely,
        "a service limits how often it is asked: wait, or bring a token",
    ),
    mark(
        "temporary failure in name resolution|name or service not known|failed to resolve|nameresolutionerror|network is unreachable|max retries exceeded with url|connecttimeout|readtimeout|read timed out|remotedisconnected|connectionreseterror|connection reset by peer|incompleteread|chunkedencodingerror|sslerror|500 server error|502 server error|503 server error|504 server error|bad gateway|service unavailable|we couldn't connect to|localentrynotfounderror",
        C::RemoteService,
        Likely,
        "mostly it passes: outlast resume; fetch data before training, or keep it with the source",
    ),
    mark(
        "address already in use|errno 98|eaddrinuse",
        C::UserError,
        Certain,
        "another process holds the port: choose a free one (torchrun --rdzv-endpoint=localhost:0)",
    ),
    mark(
        "too many open files|errno 24",
        C::UserError,
        Certain,
        "[limits] open_files = 65536, or fewer workers; torch: set_sharing_strategy('file_system')",
    ),
    mark(
        "can't start new thread|resource temporarily unavailable|blockingioerror: [errno 11]|thread creation failed",
        C::UserError,
        Likely,
        "too many processes or threads: fewer workers, or a higher [limits] pids",
    ),
    mark(
        "read-only file system|errno 30",
        C::UserError,
        Likely,
        "write to $OUTLAST_OUTPUT_DIR or $OUTLAST_CHECKPOINT_DIR",
    ),
    mark(
        "input/output error|errno 5]|structure needs cleaning",
        C::HostDead,
        Likely,
        "the machine's disk fails: outlast destroy MACHINE, then the run goes on elsewhere",
    ),
    mark(
        "stale file handle|errno 116|transport endpoint is not connected",
        C::RemoteService,
        Likely,
        "a mounted file system went away: copy the data to the machine's disk",
    ),
    mark(
        "permission denied|permissionerror|errno 13]|operation not permitted",
        C::UserError,
        Likely,
        "write only below the source tree, $OUTLAST_OUTPUT_DIR and $OUTLAST_CHECKPOINT_DIR",
    ),
    mark(
        "datasetnotfounderror|couldn't find a dataset script|couldn't find any data file|doesn't exist on the hub or cannot be accessed|dataset not found|emptydataseterror",
        C::UserError,
        Certain,
        "the data set's name or path is wrong, or it needs a token ([run] env HF_TOKEN)",
    ),
    mark(
        "filenotfounderror|no such file or directory|errno 2]|is not a local folder and is not a valid model identifier",
        C::UserError,
        Certain,
        "the file is not on the machine: is it in the source tree and not excluded? outlast config check",
    ),
    mark(
        "error(s) in loading state_dict|size mismatch for|unexpected key(s) in state_dict|missing key(s) in state_dict",
        C::UserError,
        Certain,
        "the checkpoint belongs to another model or configuration: start a new run, or restore the old settings",
    ),
    mark(
        "pytorchstreamreader failed|invalid magic number; corrupt file|unpicklingerror|metadataincompletebuffer|headertoolarge|safetensorerror|unexpected eof|ran out of input|badzipfile|file is not a zip",
        C::UserError,
        Likely,
        "a file is damaged or half written: write to a temporary name and rename",
    ),
    mark(
        "mat1 and mat2 shapes cannot be multiplied|expected all tensors to be on the same device|shape mismatch|the size of tensor|must match the size of tensor|index out of range in self|out of bounds|expected scalar type|element 0 of tensors does not require grad|modified by an inplace operation",
        C::UserError,
        Certain,
        "shapes, types or devices do not fit: the traceback names the line",
    ),
    mark(
        "loss is nan|nan loss|non-finite loss|loss is not finite|input contains nan|found inf|nan or inf found in input tensor|minimum loss scale reached|current loss scale already at minimum",
        C::UserError,
        Likely,
        "a lower learning rate, gradient clipping, bf16 instead of fp16; look at the metric before it: outlast why RUN --full",
    ),
    mark(
        "unrecognized arguments:|the following arguments are required|no such option|got unexpected extra argument|invalid choice:|missing required argument",
        C::UserError,
        Certain,
        "correct the command's arguments",
    ),
    mark(
        "syntaxerror:|indentationerror:|taberror:|nameerror:|unboundlocalerror:|attributeerror:|typeerror:|zerodivisionerror:|assertionerror|notimplementederror|keyerror:|indexerror:|valueerror:|recursionerror:|unicodedecodeerror:|jsondecodeerror",
        C::UserError,
        Certain,
        "the traceback names the line; correct it, then: outlast run",
    ),
    mark("keyboardinterrupt", C::Unknown, Possible, "something sent it an interrupt; nobody here did"),
    mark(
        "command not found|: not found",
        C::UserError,
        Likely,
        "install the command with [environment] setup, or correct its name",
    ),
    mark(
        "panicked at",
        C::UserError,
        Certain,
        "the program's own check failed; RUST_BACKTRACE=1 names the way there",
    ),
    mark(
        "cudnn_status_|cublas_status_|cusolver error|cufft error|cudnn error",
        C::GpuFault,
        Possible,
        "mostly GPU memory or versions: a smaller batch; packages that fit the driver; another machine",
    ),
    mark(
        "cuda error:|cuda failure|hip error:",
        C::GpuFault,
        Possible,
        "[run] env CUDA_LAUNCH_BLOCKING = \"1\" names the failing call",
    ),
    follows(
        "watchdog caught collective operation timeout|watchdog hit nccl|timeout at nccl work|timed out waiting for the receiver|heartbeat monitor timed out|has been stuck or hung|timeout waiting for key|monitoredbarrier",
        C::Hang,
        Likely,
        "one rank did not arrive: outlast why RUN --full (stacks); same data length and branches on all ranks?",
    ),
    follows(
        "nccl error|ncclinternalerror|ncclsystemerror|ncclunhandledcudaerror|ncclremoteerror|dist.distnetworkerror|distbackenderror|connection closed by remote peer|connection closed by peer|broken pipe",
        C::RemoteService,
        Possible,
        "a rank or the link between ranks ended first: look for the first error of all ranks; NCCL_DEBUG = \"INFO\" in [run] env",
    ),
    // Whoever prints this has `faulthandler` on.
    follows(
        "fatal python error",
        C::UserError,
        Likely,
        "the Python lines stand below it: outlast logs RUN --stderr",
    ),
    follows(
        "segmentation fault",
        C::UserError,
        Likely,
        "[run] env PYTHONFAULTHANDLER = \"1\" names the Python line",
    ),
];
