#!/bin/bash
# Pilot jobs of ablate for the study tiny. Each holds what it asks for and works on one stage of the study after
# another, as files in its folder tell it; it leaves when its time runs low, or when there is no more work. Told by USR2
# that its time is nearly over, it saves and leaves; begun anew, it goes on. It opens no port.
#SBATCH --job-name=ablate-tiny
#SBATCH --comment="ablate-44cbd64f-1"
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --requeue
#SBATCH --signal=B:USR2@120
#SBATCH --open-mode=append
#SBATCH --output="/home/ada/kd study/runs/jobs/tiny/log.txt"

job='/home/ada/kd study/runs/jobs/tiny'/1
exec >> "$job/log.txt" 2>&1
exec /opt/ablate/bin/python -P -m ablate.execution.pilots.pilot "$job"
