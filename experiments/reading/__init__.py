"""What loaders share: tables, images, splits, fingerprints, and where data sets come from."""
