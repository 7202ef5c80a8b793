# What the scripts of nano/ and table/ share; they set `stages` first.
dtype=float32 # of trainings
if command -v nvidia-smi > /dev/null; then dtype=bfloat16; fi

wants() { [[ " $stages " == *" $1 "* ]]; }

sets() { for key in $1; do printf -- '--set %s ' "$key"; done; }
