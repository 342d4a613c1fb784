"""From a folder of talking videos to shards of face crops and mels."""
