#include "arguments.h"

#include <cstdio>
#include <cstdlib>
#include <sstream>

std::vector<int64_t> numbers(const std::string& list) {
  std::vector<int64_t> values;
  std::istringstream stream(list);
  for (std::string item; std::getline(stream, item, ',');) {
    values.push_back(std::stoll(item));
  }
  return values;
}

void refuse(const char* usage) {
  std::fputs(usage, stderr);
  std::exit(2);
}

void parse_options(int argc, char** argv,
                   const std::map<std::string, std::function<void(const std::string&)>>& known,
                   const char* usage) {
  for (int i = 1; i < argc; i += 2) {
    const auto option = known.find(argv[i]);
    if (option == known.end() || i + 1 == argc) {
      refuse(usage);
    }
    option->second(argv[i + 1]);
  }
}
