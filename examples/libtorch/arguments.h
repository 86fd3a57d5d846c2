// Command lines of the form --name value.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

/// The numbers of a text such as "300,300,300".
std::vector<int64_t> numbers(const std::string& list);

/// Hands each option's value to its function; ends the program, with `usage`, where one is not known or has
/// none.
void parse_options(int argc, char** argv,
                   const std::map<std::string, std::function<void(const std::string&)>>& known,
                   const char* usage);

/// Ends the program with `usage`, as a wrong command line does.
[[noreturn]] void refuse(const char* usage);
