#!/bin/bash
# The driver of ablate for the study kd: a small process that has the study's pilot jobs submitted, and waits for
# them. Told by USR2 that its time is nearly over it goes, and has itself queued again; the pilot jobs go on meanwhile.
# It opens no port.
#SBATCH --job-name=ablate-driver-kd
#SBATCH --comment="ablate-1a2b3c4d-1"
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --partition=cpu
#SBATCH --account=nlp
#SBATCH --time=1-00:00:00
#SBATCH --cpus-per-task=1
#SBATCH --mem=2G
#SBATCH --requeue
#SBATCH --signal=B:USR2@60
#SBATCH --open-mode=append
#SBATCH --output="/shared/runs/studies/kd/100%%/run.log"

cd '/home/me/my studies' || exit 1
export ABLATE_DRIVER_JOB="Slurm job $SLURM_JOB_ID of profile a100" ABLATE_DRIVER_IS_EXPENDABLE=1
leave() { is_leaving=1; kill -USR2 "$driver"; }
trap leave USR2
/opt/ablate/bin/python -P -m ablate run 'my study.yaml' --executor a100 &
driver=$!
wait "$driver"; code=$?
while kill -0 "$driver" 2> /dev/null; do wait "$driver"; code=$?; done
[ -z "$is_leaving" ] || scontrol requeue "$SLURM_JOB_ID"
exit "$code"
