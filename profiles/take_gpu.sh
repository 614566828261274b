# Sourced before a job on a GPU: take the first one that no other run of this user holds,
# and keep it until the job ends. In a SLURM job the GPU is chosen already. The file is
# the user's own, for nobody may open that of another in /tmp.
if [ -z "${SLURM_JOB_ID-}" ]; then
    gpus=${CUDA_VISIBLE_DEVICES-$(nvidia-smi --query-gpu=index --format=csv,noheader)}
    for gpu in ${gpus//,/ } none; do
        exec {lock}> "/tmp/maple-$(id -u)-gpu-$gpu"
        flock --nonblock "$lock" && break
    done
    if [ "$gpu" = none ]; then
        echo "no free GPU among: $gpus; start fewer jobs, e.g. --resources gpu=1" >&2
        exit 1
    fi
    export CUDA_VISIBLE_DEVICES=$gpu
fi
