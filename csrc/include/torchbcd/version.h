// The version of the library: the one place it is written.
#pragma once

#define TORCHBCD_VERSION_MAJOR 0
#define TORCHBCD_VERSION_MINOR 1
#define TORCHBCD_VERSION_PATCH 0
#define TORCHBCD_VERSION "0.1.0"
