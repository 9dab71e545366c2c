#!/bin/bash
# Pilot jobs of ablate for the study tiny. Each holds what it asks for and works on one stage of the study after
# another, as files in its folder tell it; it leaves when its time runs low, or when there is no more work. Told by USR2
# that its time is nearly over, it saves and leaves; begun anew, it goes on. It opens no port.
#SBATCH --job-name=ablate-tiny
#SBATCH --comment="ablate-44cbd64f-17 to 19"
#SBATCH --array=0-2
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --partition=gpu
#SBATCH --account=nlp
#SBATCH --qos=high
#SBATCH --time=08:00:00
#SBATCH --gres=gpu:a100:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --constraint="a100&nvlink"
#SBATCH --nice=100
#SBATCH --exclude=n[1-3]
#SBATCH --exclusive
#SBATCH --reservation="course 7"
#SBATCH --requeue
#SBATCH --signal=B:USR2@120
#SBATCH --open-mode=append
#SBATCH --output="/home/ada/kd study/runs/jobs/tiny/log.txt"

job='/home/ada/kd study/runs/jobs/tiny'/$((17 + SLURM_ARRAY_TASK_ID))
exec >> "$job/log.txt" 2>&1
set -e
module load cuda
source ~/venv/bin/activate
set +e
exec /opt/ablate/bin/python -P -m ablate.execution.pilots.pilot "$job"
